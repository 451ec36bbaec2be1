/** The sidecar's bundle as a process, a gateway as another, the real API server, and everything between them. */

import { execFileSync } from 'node:child_process'
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AUDIENCE, GATEWAY, WORKER, type ClusterRig } from '../cluster/cluster-rig.ts'
import { countDescriptors } from '../kit/descriptors.ts'
import { parseMetrics } from '../kit/parse-metrics.ts'
import { startSidecarProcess, type SidecarProcess } from '../kit/sidecar-process.ts'
import { mountVolume } from '../kit/volume.ts'
import { waitForProcess } from '../kit/wait.ts'
import { startProcess, type Running } from '../openclaw/processes.ts'
import type { Resolver } from './resolver.ts'
import { startTcpRelay } from './tcp-relay.ts'

/** What is there for all scenarios of a run. */
export type Ground = {
  readonly cluster: ClusterRig
  readonly resolver: Resolver
  /** The sidecar's bundle. */
  readonly main: string
  readonly directory: string
  /** What only a process outside the namespace can do. */
  readonly apiServer: (what: ApiServerAct) => Promise<void>
}

export type ApiServerAct = 'freeze' | 'thaw' | 'kill' | 'start'

export type WorldOptions = {
  /** Its wall clock is that of libfaketime, which reads this file. */
  readonly hasClockOfItsOwn: boolean
  /** Its audit goes to a file on a small disk in place of a pipe. */
  readonly auditsToDisk: boolean
}

export type World = Awaited<ReturnType<typeof startWorld>>

/** The network namespace is the run's own, so every port is free. */
export const PORTS = {
  workers: 18_443,
  workersRelay: 28_443,
  admin: 9464,
  gateway: 18_789,
  gatewayRelay: 28_789,
  apiRelay: 27_443,
} as const
/** A name that the API server's certificate has. */
export const API_NAME = 'kubernetes.default'
const STUB = fileURLToPath(import.meta.resolve('@openclaw-k8s/gateway-stub/main.ts'))
const FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1'
/** As in the image, with the heap of a small container. */
const NODE_OPTIONS = '--max-semi-space-size=4 --disable-sigusr1 --max-old-space-size=64'
const FILES_DISK = '256k'
const AUDIT_DISK = '512k'
const READY_MS = 60_000
const END_MS = 15_000
const METRICS_MS = 5000

export const startWorld = async (
  ground: Ground,
  { hasClockOfItsOwn, auditsToDisk }: WorldOptions,
) => {
  const { cluster, main } = ground
  const directory = join(ground.directory, `world-${performance.now()}`)
  const [files, disk] = [join(directory, 'files'), join(directory, 'disk')]
  for (const [path, size] of [
    [files, FILES_DISK],
    [disk, AUDIT_DISK],
  ] as const) {
    mkdirSync(path, { recursive: true })
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path])
  }
  const own = async () => cluster.mint({ serviceAccount: GATEWAY, audiences: [] })
  const ownTokens = [await own()]
  const contents = () => ({
    token: ownTokens.at(-1) ?? '',
    'ca.crt': cluster.config.ca,
    'config.json': JSON.stringify(configOf(cluster, files)),
  })
  const swap = await mountVolume(files, contents())

  const apiRelay = await startTcpRelay({
    port: PORTS.apiRelay,
    target: Number(cluster.config.server.port),
  })
  const gatewayRelay = await startTcpRelay({ port: PORTS.gatewayRelay, target: PORTS.gateway })
  const workersRelay = await startTcpRelay({
    port: PORTS.workersRelay,
    target: PORTS.workers,
    keepsAddress: true,
  })

  const startGateway = (): Running =>
    startProcess({
      name: 'gateway stub',
      command: process.execPath,
      args: [STUB, '--port', String(PORTS.gateway)],
    })
  let gateway = startGateway()

  const clockFile = join(directory, 'clock')
  writeFileSync(clockFile, '+0')
  const clockEnv = {
    LD_PRELOAD: FAKETIME,
    FAKETIME_TIMESTAMP_FILE: clockFile,
    FAKETIME_CACHE_DURATION: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
  const auditFile = join(disk, 'audit')
  const outputs: SidecarProcess[] = []
  let isEndExpected = false
  let isRunning = false
  const problems: string[] = []
  const watchOver = async ({ exited }: SidecarProcess): Promise<void> => {
    const { code, signal } = await exited
    isRunning = false
    if (!isEndExpected) problems.push(`the sidecar ended by itself: ${signal ?? code}`)
  }
  const startSidecar = (): SidecarProcess => {
    const fd = auditsToDisk ? openSync(auditFile, 'a') : undefined
    const started = startSidecarProcess(['serve', '--config', join(files, 'config.json')], {
      main,
      stdout: fd,
      env: { NODE_OPTIONS, ...(hasClockOfItsOwn ? clockEnv : {}) },
    })
    if (fd !== undefined) closeSync(fd)
    outputs.push(started)
    isRunning = true
    void watchOver(started)
    return started
  }
  let sidecar = startSidecar()

  const ask = (path: string) =>
    fetch(`http://127.0.0.1:${PORTS.admin}${path}`, { signal: AbortSignal.timeout(METRICS_MS) })
  const ready = async () => {
    await waitForProcess('readiness', READY_MS, async () => (await ask('/readyz')).status === 200)
  }
  const gatewayReady = async () => {
    const url = `http://127.0.0.1:${PORTS.gateway}/healthz`
    await waitForProcess('the gateway', READY_MS, async () => (await fetch(url)).ok)
  }
  const endSidecar = async (signal: NodeJS.Signals) => {
    isEndExpected = true
    sidecar.signal(signal)
    const late = setTimeout(() => sidecar.signal('SIGKILL'), END_MS)
    const exit = await sidecar.exited
    clearTimeout(late)
    return exit
  }

  return {
    files,
    disk,
    relays: { api: apiRelay, gateway: gatewayRelay, workers: workersRelay },
    resolver: ground.resolver,
    apiServer: ground.apiServer,
    apiServerReady: () =>
      waitForProcess('the API server', READY_MS, async () => {
        const { status } = await cluster.api.call({ method: 'GET', path: '/readyz' })
        return status === 200
      }),
    problems,
    /** `undefined` while another fault has ended it. */
    sidecarPid: (): number | undefined => (isRunning ? sidecar.pid : undefined),
    gatewayPid: (): number | undefined => (gateway.hasExited() ? undefined : gateway.pid),
    endSidecar,
    /** Another fault may have brought it back already. */
    restartSidecar(): void {
      if (isRunning) return
      isEndExpected = false
      sidecar = startSidecar()
    },
    killGateway: () => gateway.end('SIGKILL'),
    restartGateway(): void {
      if (gateway.hasExited()) gateway = startGateway()
    },
    /** New files, as the kubelet swaps them in; another fault may have ended the API server that mints the token. */
    rotate: async (): Promise<void> => {
      ownTokens.push(await waitForProcess('a token for the sidecar', READY_MS, own))
      await swap(contents())
    },
    /** Moves the wall clock of the sidecar by so much, of which it notices within a second. */
    setClock: (seconds: number): void =>
      writeFileSync(clockFile, `${seconds < 0 ? '' : '+'}${seconds}`),
    ready,
    gatewayReady,
    metrics: async () => parseMetrics(await (await ask('/metrics')).text(), 'openclaw_k8s_'),
    /** Without those to the API server, which it keeps. */
    descriptors: (): number => countDescriptors(sidecar.pid, PORTS.apiRelay),
    allDescriptors: (): number => readdirSync(`/proc/${sidecar.pid}/fd`).length,
    audit: (): readonly string[] =>
      auditsToDisk
        ? readFileSync(auditFile, 'utf8').split('\n').filter(Boolean)
        : outputs.flatMap(({ stdout }) => stdout.all),
    log: (): readonly string[] => outputs.flatMap(({ stderr }) => stderr.all),
    ownTokens: ownTokens as readonly string[],
    stop: async (): Promise<void> => {
      await endSidecar('SIGKILL')
      await gateway.end('SIGKILL')
      for (const relay of [apiRelay, gatewayRelay, workersRelay]) await relay.stop()
      for (const path of [files, disk]) execFileSync('umount', ['--lazy', path])
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

const configOf = (cluster: ClusterRig, files: string) => ({
  listen: { workers: `127.0.0.1:${PORTS.workers}`, admin: `127.0.0.1:${PORTS.admin}` },
  gateway: { url: `ws://127.0.0.1:${PORTS.gatewayRelay}`, protocol: 'stream' },
  kubernetes: {
    apiServer: `https://${API_NAME}:${PORTS.apiRelay}`,
    caFile: join(files, 'ca.crt'),
    tokenFile: join(files, 'token'),
  },
  k8sTrust: {
    audiences: [AUDIENCE],
    allowedIdentities: [{ namespace: cluster.namespace, serviceAccount: WORKER }],
  },
  // Strangers come from few addresses, and each is to be judged.
  limits: { failuresPerAddress: 0, idlePing: '3s', streamsPerPod: 16 },
  jwks: { refresh: '3s' },
  drain: { window: '1s' },
})
