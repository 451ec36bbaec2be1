/** A sidecar in a memory cgroup with a good worker whose stream echoes throughout, and hostile sockets. */

import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { startSidecarProcess } from '../../kit/sidecar-process.ts'
import { startKubeApi } from '../../kit/kube-api.ts'
import { sidecarSettings } from '../../kit/sidecar-settings.ts'
import { waitForProcess } from '../../kit/wait.ts'
import { connectWorker, nextMessage, openWorker } from '../../kit/worker-client.ts'
import type { Shipped } from '../peers/shipped.ts'

export type HostileRigOptions = {
  readonly shipped: Shipped
  /** `path=value`, configuration of the sidecar. */
  readonly set: readonly string[]
  readonly memoryMib: number
  readonly openFilesMax?: number | undefined
}

export type HostileRig = Awaited<ReturnType<typeof startHostileRig>>

const CGROUP = '/sys/fs/cgroup/memory'
const MIB = 1024 * 1024
/** In a container Node takes half of its memory for the heap. */
const HEAP_SHARE = 0.5
/** What Node derives from the memory of a container. */
export const heapFlag = (memoryMib: number): string =>
  `--max-old-space-size=${memoryMib * HEAP_SHARE}`
export const POD_ADDRESS = '127.0.0.11'
const ECHO_EVERY_MS = 50
const SAMPLE_EVERY_MS = 20
const READY_MS_MAX = 20_000
const SETTLE_MS = 1000
const ANSWER_MS_MAX = 10_000

export const startHostileRig = async (options: HostileRigOptions) => {
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-hostile-'))
  const api = await startKubeApi()
  const gateway = await startGatewayStub()
  const { caFile, tokenFile } = await api.files(directory)
  const settings = [...sidecarSettings({ gateway, api, caFile, tokenFile }), ...options.set]
  const { env, main } = options.shipped
  const sidecar = startSidecarProcess(
    ['serve', ...settings.flatMap((setting) => ['--set', setting])],
    {
      main,
      env: { ...env, NODE_OPTIONS: `${env['NODE_OPTIONS'] ?? ''} ${heapFlag(options.memoryMib)}` },
      ...(options.openFilesMax === undefined ? {} : { openFilesMax: options.openFilesMax }),
    },
  )
  const cgroup = joinCgroup(sidecar.pid, options.memoryMib)
  let exit: string | undefined
  void sidecar.exited.then(({ code, signal }) => (exit = signal ?? `exit ${code}`))
  const { workers, admin } = await sidecar.listening()
  await waitForProcess('the sidecar is ready', READY_MS_MAX, () => isOk(`http://${admin}/readyz`))

  const pod = api.createPod({
    namespace: 'openclaw',
    name: 'worker-a',
    serviceAccount: 'openclaw-worker',
    ips: [POD_ADDRESS],
    nodeName: 'node-1',
  })
  const mint = () => api.mintToken({ pod, audiences: ['openclaw-gateway'] })
  const token = mint()
  const worker = { url: `ws://${workers}`, token, localAddress: POD_ADDRESS }
  const echo = await startEcho(worker)
  const rss = sampleRss(sidecar.pid)
  const sockets = new Set<Socket>()

  return {
    api,
    sidecar,
    token,
    /** Another token of the worker's pod. */
    mint,
    rssMib: rss.now,
    workerPort: portOf(workers),
    adminPort: portOf(admin),
    adminUrl: `http://${admin}`,
    hasExited: () => exit !== undefined,
    /** A socket that is destroyed with the rig, read by nobody until it is resumed. */
    dial: (port: number, localAddress: string): Promise<Socket> =>
      new Promise((resolve) => {
        const socket = connect({ host: '127.0.0.1', port, localAddress })
        sockets.add(socket)
        socket.on('error', () => {})
        socket.once('connect', () => resolve(socket))
        // Refused or cut: the attack goes on with the next one.
        socket.once('close', () => {
          sockets.delete(socket)
          resolve(socket)
        })
      }),
    /** Looks at the sidecar while the attack's sockets are still open, then ends everything. */
    finish: async () => {
      await sleep(SETTLE_MS)
      const isProbed = exit === undefined && (await isOk(`http://${admin}/livez`))
      const isHeard = exit === undefined && (await hasHeardAll(`http://${admin}/metrics`))
      const outcome = await echo.stop()
      for (const socket of sockets) socket.destroy()
      api.releaseReviews()
      await sleep(SETTLE_MS)
      const again = await connectWorker(worker).catch(() => undefined)
      if (again?.ok === true) again.socket.terminate()
      const peakMib = rss.stop()
      const seen = exit
      sidecar.signal('SIGKILL')
      await sidecar.exited
      await gateway.close()
      await api.stop()
      rmSync(directory, { recursive: true })
      if (cgroup !== undefined) rmdirSync(cgroup)
      return {
        exit: seen,
        isProbed: isProbed && isHeard,
        echo: { ...outcome, isAdmitted: again?.ok === true },
        peakMib,
      }
    },
  }
}

/** The chart's limit, where this machine lets us set one; the heap is bounded in any case. */
export const joinCgroup = (pid: number, memoryMib: number): string | undefined => {
  const group = join(CGROUP, `auth-sidecar-hostile-${pid}`)
  try {
    mkdirSync(group)
    writeFileSync(join(group, 'memory.limit_in_bytes'), String(memoryMib * MIB))
    writeFileSync(join(group, 'cgroup.procs'), String(pid))
    return group
  } catch {
    process.stderr.write('no memory cgroup can be made here: only the heap has a limit\n')
    return undefined
  }
}

const portOf = (address: string): number => Number(address.split(':').at(-1))

export const isOk = (url: string): Promise<boolean> =>
  fetch(url, { signal: AbortSignal.timeout(ANSWER_MS_MAX) }).then(
    ({ ok }) => ok,
    () => false,
  )

/** Whether every error of a socket had a listener. */
const hasHeardAll = (url: string): Promise<boolean> =>
  fetch(url, { signal: AbortSignal.timeout(ANSWER_MS_MAX) }).then(
    async (answer) => /^openclaw_k8s_uncaught_peer_errors_total 0$/m.test(await answer.text()),
    () => false,
  )

/** A stream that sends all the time and expects the echo. */
export const startEcho = async (worker: Parameters<typeof openWorker>[0]) => {
  const socket = await openWorker(worker)
  let sent = 0
  let answered = 0
  let slowestMs = 0
  const isOpen = (): boolean => socket.readyState === socket.OPEN
  const stopping = new AbortController()
  const talk = async (): Promise<void> => {
    while (!stopping.signal.aborted && isOpen()) {
      const startedAt = performance.now()
      sent += 1
      socket.send(`message ${sent}`)
      const { text } = await nextMessage(socket)
      if (text !== `message ${sent}`) throw new Error(`${text} came back`)
      answered += 1
      slowestMs = Math.max(slowestMs, performance.now() - startedAt)
      await sleep(ECHO_EVERY_MS)
    }
  }
  const talking = talk().catch(() => {})
  return {
    stop: async () => {
      stopping.abort()
      await Promise.race([talking, sleep(ANSWER_MS_MAX)])
      const outcome = { sent, answered, slowestMs, isOpen: isOpen() }
      socket.terminate()
      return outcome
    },
  }
}

/** Resident memory as the kernel counts it (proc(5)), in MiB. */
export const sampleRss = (pid: number) => {
  const now = (): number => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024
    } catch {
      return 0
    }
  }
  let peak = now()
  const timer = setInterval(() => (peak = Math.max(peak, now())), SAMPLE_EVERY_MS)
  return {
    now,
    stop: () => {
      clearInterval(timer)
      return Math.max(peak, now())
    },
  }
}
