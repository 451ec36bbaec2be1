/** A live sidecar for the fuzzer, in this process or as the bundle, and whether it is as it was at first. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { WebSocket } from 'ws'
import { startProcessRig } from '../bench/process-rig.ts'
import { waitForProcess } from '../kit/wait.ts'
import { issueTls } from '../kit/openclaw-rig.ts'
import { startRig } from '../kit/rig.ts'
import { nextMessage, openWorker } from '../kit/worker-client.ts'

export type FuzzRigOptions = {
  readonly asProcess: boolean
  readonly isTls?: boolean
  /** `path=value`, over the rig's own configuration. */
  readonly set?: readonly string[]
}

/** A running sidecar between an API server and an echoing gateway. */
type Sidecar = {
  readonly port: number
  readonly adminPort: number
  readonly token: string
  readonly pid: number
  readonly metrics: () => Promise<ReadonlyMap<string, number>>
  /** Why it is not alive any more; `undefined` while it is. */
  readonly whyEnded: () => string | undefined
  readonly stop: () => Promise<void>
}

/** The pod all workers with a token are in. */
export const POD_ADDRESS = '127.0.0.11'
const BUNDLER = fileURLToPath(new URL('../../sidecar/bundle.ts', import.meta.url))
const PREFIX = 'openclaw_k8s_'
/** The fuzzer must be refused for what it sends, not for how much it sends. */
const NO_LIMITS = [
  'limits.failuresPerAddress=0',
  'limits.pendingPerAddress=4096',
  'limits.streamsPerPod=1024',
  'limits.idlePing=1h',
  // A sidecar that has met a bug is gone at once.
  'drain.window=0s',
]
/** Kept-alive connections to the API server and to the admin port come and go. */
const SPARE_DESCRIPTORS = 8
const SETTLE_MS_MAX = 20_000
const STDERR_SHOWN_MAX = 2000
const FATAL = /"level":"fatal"/

/** The bundle that the image carries, built at most once a run. */
const bundle = (() => {
  let main: string | undefined
  return (): string => {
    if (main !== undefined) return main
    const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-fuzz-'))
    process.once('exit', () => rmSync(directory, { recursive: true }))
    execFileSync(process.execPath, [BUNDLER, directory])
    main = join(directory, 'auth-sidecar')
    return main
  }
})()

/** The sidecar, the address of its gateway's requests, and a healthy worker that must not notice. */
export const startFuzzRig = async (options: FuzzRigOptions) => {
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-fuzz-rig-'))
  const tls = options.isTls === true ? await issueTls(directory) : { ca: undefined, flags: [] }
  let handshakes = 0
  const start = options.asProcess ? startProcess : startInProcess
  const sidecar = await start({
    set: [...NO_LIMITS, ...tls.flags, ...(options.set ?? [])],
    onHandshake: () => (handshakes += 1),
  })
  const scheme = tls.ca === undefined ? 'ws' : 'wss'
  const connect = () =>
    openWorker({
      url: `${scheme}://127.0.0.1:${sidecar.port}`,
      token: sidecar.token,
      localAddress: POD_ADDRESS,
      ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    })
  const healthy = await connect()
  let own = 1
  const admitOne = async (): Promise<void> => {
    const worker = await connect()
    own += 1
    await echo(worker)
    worker.terminate()
  }
  const descriptors = () => readdirSync(`/proc/${sidecar.pid}/fd`).length
  const assertAlive = (): void => {
    const why = sidecar.whyEnded()
    assert.ok(why === undefined, `the sidecar ended: ${why}`)
  }
  const isAtRest = async (streams: number): Promise<boolean> => {
    assertAlive()
    const metrics = await sidecar.metrics()
    return metrics.get('streams') === streams && metrics.get('pending_sockets') === 0
  }
  await echo(healthy)
  await admitOne()
  await waitForProcess('rest', SETTLE_MS_MAX, () => isAtRest(1))
  const descriptorsAtFirst = descriptors()

  return {
    ...sidecar,
    ca: tls.ca,
    descriptors,
    /** Requests the gateway has seen, without those of the rig's own workers. */
    foreignHandshakes: () => handshakes - own,
    assertAlive,
    /** Throws unless it is alive, lets workers in, and holds on to nothing. */
    assertUnchanged: async (): Promise<void> => {
      assertAlive()
      await waitForProcess('an end of all connections', SETTLE_MS_MAX, () => isAtRest(1))
      await waitForProcess(
        `${descriptorsAtFirst} descriptors instead of ${descriptors()}`,
        SETTLE_MS_MAX,
        () => descriptors() <= descriptorsAtFirst + SPARE_DESCRIPTORS,
      )
      await echo(healthy)
      await admitOne()
      const uncaught = (await sidecar.metrics()).get('uncaught_peer_errors_total') ?? 0
      if (uncaught !== 0) throw new Error(`${uncaught} errors of peers were not caught`)
      assertAlive()
    },
    stop: async (): Promise<void> => {
      healthy.terminate()
      await sidecar.stop()
      rmSync(directory, { recursive: true })
    },
  }
}

export type FuzzRig = Awaited<ReturnType<typeof startFuzzRig>>

/** A rig that is started again once its sidecar has ended, so that a smaller input can be looked for. */
export const holdFuzzRig = async (options: FuzzRigOptions) => {
  let current = startFuzzRig(options)
  let isClosed = false
  await current
  const restart = async (ended: FuzzRig): Promise<FuzzRig> => {
    await ended.stop()
    return startFuzzRig(options)
  }
  return {
    get: async (): Promise<FuzzRig> => {
      const rig = await current
      // An input that took too long is left behind, and may still come here.
      if (isClosed) throw new Error('the target is closed')
      if (rig.whyEnded() !== undefined) current = restart(rig)
      return current
    },
    close: async (): Promise<void> => {
      isClosed = true
      await (await current).stop()
    },
  }
}

type StartOptions = { readonly set: readonly string[]; readonly onHandshake: () => void }

const startInProcess = async ({ set, onHandshake }: StartOptions): Promise<Sidecar> => {
  const rig = await startRig({ set, gateway: { onHandshake } })
  return {
    port: rig.port,
    adminPort: Number(new URL(rig.adminUrl).port),
    token: rig.mint({ pod: rig.createPod() }),
    pid: process.pid,
    metrics: async () => withoutPrefix(await rig.metrics()),
    whyEnded: () => undefined,
    stop: rig.stop,
  }
}

const startProcess = async ({ set, onHandshake }: StartOptions): Promise<Sidecar> => {
  const rig = await startProcessRig({ set, gateway: { onHandshake }, main: bundle() })
  let ended: string | undefined
  const watchEnd = async (): Promise<void> => {
    const { code, signal } = await rig.sidecar.exited
    ended = `${signal ?? code}\n${rig.sidecar.stderr.text.slice(-STDERR_SHOWN_MAX)}`
  }
  void watchEnd()
  return {
    port: rig.port,
    adminPort: rig.adminPort,
    token: rig.token,
    pid: rig.sidecar.pid,
    metrics: rig.metrics,
    // Its exit code comes only when it has drained.
    whyEnded: () => ended ?? fatalOf(rig.sidecar.stderr.text),
    stop: rig.stop,
  }
}

const fatalOf = (log: string): string | undefined =>
  FATAL.test(log) ? log.slice(-STDERR_SHOWN_MAX) : undefined

const echo = async (worker: WebSocket): Promise<void> => {
  const text = `echo ${performance.now()}`
  worker.send(text)
  const answer = await nextMessage(worker)
  if (answer.text !== text) throw new Error(`${text} came back as ${answer.text}`)
}

const withoutPrefix = (metrics: ReadonlyMap<string, number>): ReadonlyMap<string, number> =>
  new Map([...metrics].map(([name, value]) => [name.replace(PREFIX, ''), value]))
