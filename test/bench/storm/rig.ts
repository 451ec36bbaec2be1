/** The rig of a storm: API server, gateway, sidecar and workers, each in its own process. */

import { execFileSync, fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startSidecarProcess } from '../../kit/sidecar-process.ts'
import { sidecarSettings } from '../../kit/sidecar-settings.ts'
import { waitForProcess } from '../../kit/wait.ts'
import type { Shipped } from '../peers/shipped.ts'
import type { ClusterCounts, ClusterReady, ClusterRequest, StormWorker } from './api.ts'
import type { GarbageDone, GarbageRequest } from './garbage.ts'
import type { GatewayReady } from './gateway.ts'
import type { LoadAnswer, LoadCommand } from './load.ts'
import { parseMetrics } from '../../kit/parse-metrics.ts'

export type StormRigOptions = Omit<ClusterRequest, 'directory'> & {
  readonly protocol: 'stream' | 'openclaw'
  /** What of the sidecar is run, and in which environment. */
  readonly shipped: Pick<Shipped, 'main' | 'env'>
  /** `path=value`, over the rig's own configuration. */
  readonly set: readonly string[]
}

export type StormRig = Awaited<ReturnType<typeof startStormRig>>

/** What the sidecar's process has open besides the sockets of its streams. */
const SPARE_FILES = 250
const FILES_A_STREAM = 2
const SECRET = 'the-secret-of-the-gateway-itself'
const SEED = 'a-seed-of-more-than-sixteen-bytes'
const READY_MS_MAX = 60_000

export const startStormRig = async (options: StormRigOptions) => {
  const { workers, reviews, podGets, protocol } = options
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-storm-'))
  const children: ChildProcess[] = []
  const start = (file: string, request: object): ChildProcess => {
    const child = fork(new URL(file, import.meta.url), [JSON.stringify(request)])
    children.push(child)
    return child
  }
  const api = start('api.ts', { directory, workers, reviews, podGets })
  const cluster = (await answerOf(api)) as ClusterReady
  const gateway = start('gateway.ts', { protocol, secret: SECRET })
  const { url } = (await answerOf(gateway)) as GatewayReady
  const sidecar = startSidecar(options, { directory, cluster, gatewayUrl: url })
  const ports = await sidecar.listening()
  const admin = `http://${ports.admin}`
  const isReady = async () => (await fetch(`${admin}/readyz`)).status === 200
  await waitForProcess('the sidecar is ready', READY_MS_MAX, isReady)
  const port = Number(ports.workers.split(':').at(-1))
  const target = { host: '127.0.0.1', port, protocol }
  const hold = Math.min(workers, Math.floor((filesMax() - SPARE_FILES) / FILES_A_STREAM))
  const load = start('load.ts', { workersFile: cluster.workersFile, target, hold })
  await answerOf(load)

  return {
    /** Streams that stay open at once, at most: the limit on open files of a process says so. */
    hold,
    /** Of every process, including this one. */
    pids: () => [process.pid, sidecar.pid, ...children.map(({ pid }) => pid ?? 0)],
    tell: async (command: LoadCommand): Promise<LoadAnswer> =>
      (await answerOf(load, command)) as LoadAnswer,
    counts: async () => (await answerOf(api, {})) as ClusterCounts,
    restartGateway: (downMs: number) => void gateway.send({ downMs }),
    metrics: () => readMetrics(admin),
    memory: processMemory(sidecar.pid),
    throwGarbage: async (request: Omit<GarbageRequest, 'target' | 'token'>) => {
      const listed = JSON.parse(readFileSync(cluster.workersFile, 'utf8')) as StormWorker[]
      const { token = '' } = listed[0] ?? {}
      const garbage = start('garbage.ts', { ...request, target, token })
      return (await answerOf(garbage)) as GarbageDone
    },
    stop: async () => {
      sidecar.signal('SIGKILL')
      await sidecar.exited
      for (const child of children) child.kill('SIGKILL')
      rmSync(directory, { recursive: true })
    },
  }
}

type Runtime = {
  readonly directory: string
  readonly cluster: ClusterReady
  readonly gatewayUrl: string
}

const startSidecar = (
  { protocol, shipped, set }: StormRigOptions,
  { directory, cluster, gatewayUrl }: Runtime,
) => {
  const secretFile = join(directory, 'gateway-token')
  const seedFile = join(directory, 'device-seed')
  writeFileSync(secretFile, SECRET)
  writeFileSync(seedFile, SEED)
  const settings = [
    ...sidecarSettings({ gateway: { url: gatewayUrl }, api: cluster, ...cluster, protocol }),
    ...(protocol === 'openclaw'
      ? [`gateway.auth.secretFile=${secretFile}`, `gateway.deviceSeedFile=${seedFile}`]
      : []),
    ...set,
  ]
  const ours = fileURLToPath(new URL('sidecar.ts', import.meta.url))
  return startSidecarProcess(['serve', ...settings.flatMap((each) => ['--set', each])], {
    env: shipped.env,
    main: protocol === 'openclaw' ? ours : shipped.main,
  })
}

/** Sends a child a message, if there is one, and resolves with its next answer. */
const answerOf = async (child: ChildProcess, message?: object): Promise<unknown> => {
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`${child.spawnargs[1]} ended with ${String(code)}`)
  })
  ended.catch(() => {})
  if (message !== undefined) child.send(message)
  const [answer] = (await Promise.race([once(child, 'message'), ended])) as [unknown]
  return answer
}

/** Node raises its own limit to the hard one. */
const filesMax = (): number => {
  const text = execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).trim()
  return text === 'unlimited' ? Infinity : Number(text)
}

/** Values by series, without the common prefix. */
const readMetrics = async (admin: string): Promise<ReadonlyMap<string, number>> => {
  return parseMetrics(await (await fetch(`${admin}/metrics`)).text(), 'openclaw_k8s_')
}

/** Resident memory as the kernel counts it (proc(5)), in MiB. */
const processMemory = (pid: number) => {
  const read = (name: string): number => {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    return Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1] ?? Number.NaN) / 1024
  }
  return {
    now: () => read('VmRSS'),
    peak: () => read('VmHWM'),
    /** From now on the peak is measured from this moment. */
    resetPeak: () => writeFileSync(`/proc/${pid}/clear_refs`, '5'),
  }
}
