/** A sidecar process with an API server and a gateway to itself, as one target of Prometheus. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { startGatewayStub, type GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { startKubeApi, type KubeApi } from '../kit/kube-api.ts'
import type { Pod } from '../kit/kube-store.ts'
import type { TokenRequest } from '../kit/kube-tokens.ts'
import { startSidecarProcess, type SidecarProcess } from '../kit/sidecar-process.ts'
import { sidecarSettings } from '../kit/sidecar-settings.ts'
import { connectWorker, openWorker } from '../kit/worker-client.ts'

type SiteOptions = {
  readonly protocol?: 'stream' | 'openclaw'
  /** `path=value`, over the site's own settings. Called with the site's directory. */
  readonly set?: (directory: string) => readonly string[] | Promise<readonly string[]>
  readonly gateway?: GatewayStubOptions
  readonly openFilesMax?: number
  /** A module that the process loads first. */
  readonly preload?: string
  /** Runs before the sidecar starts. */
  readonly prepare?: (api: KubeApi, directory: string) => unknown
}

/** Alerts that one state of a sidecar raises. */
type State = {
  readonly alerts: readonly string[]
  readonly state: string
}

/** What Prometheus scrapes of a case. */
type Target = { readonly remove: () => Promise<void>; readonly add: () => Promise<void> }

export type AlertCase = State & {
  readonly start: () => Promise<{
    /** The target that Prometheus scrapes. */
    readonly admin: string
    readonly stop: () => Promise<void>
    /** Brings the state about. */
    readonly provoke: (target: Target) => unknown
    /** Ends it. */
    readonly relieve: (target: Target) => unknown
  }>
}

/** A case with a separate site; what `repeat` and `hold` do in `provoke` goes on until `rest`. */
export type SiteCase = State & {
  readonly site?: SiteOptions
  readonly provoke: (site: Site, target: Target) => unknown
  readonly relieve: (site: Site, target: Target) => unknown
}

export const onSite = ({ alerts, state, site: options = {}, ...steps }: SiteCase): AlertCase => ({
  alerts,
  state,
  async start() {
    const site = await startSite(options)
    const { admin, stop } = site
    return {
      admin,
      stop,
      provoke: (target) => steps.provoke(site, target),
      relieve: (target) => steps.relieve(site, target),
    }
  },
})

export type Site = Awaited<ReturnType<typeof startSite>>

/** Where the connections come from that say nothing. */
export const HELD_ADDRESS = '127.0.0.77'
const AUDIENCE = 'openclaw-gateway'
/** Attempts of one address would be limited otherwise. */
const UNLIMITED = ['limits.failuresPerAddress=0', 'drain.window=0s']

const startSite = async ({
  protocol = 'stream',
  set = () => [],
  gateway: gatewayOptions = {},
  openFilesMax,
  preload,
  prepare,
}: SiteOptions) => {
  const directory = await mkdtemp(join(tmpdir(), 'alerts-'))
  const api = await startKubeApi()
  let gateway = await startGatewayStub(gatewayOptions)
  const { caFile, tokenFile } = await api.files(directory)
  await prepare?.(api, directory)
  const own = sidecarSettings({ gateway, api, caFile, tokenFile, protocol })
  const settings = [...own, ...UNLIMITED, ...(await set(directory))]
  const configFile = join(directory, 'config.yaml')
  await writeFile(configFile, 'log: { level: info }\n')
  const env = preload === undefined ? {} : { NODE_OPTIONS: `--import=${preload}` }
  let ports: readonly string[] = []
  let sidecar: SidecarProcess
  const start = async () => {
    const flags = [...settings, ...ports].flatMap((each) => ['--set', each])
    sidecar = startSidecarProcess(['serve', '--config', configFile, ...flags], {
      env,
      ...(openFilesMax === undefined ? {} : { openFilesMax }),
    })
    const { workers, admin } = await sidecar.listening().catch((error: unknown) => {
      throw new Error(sidecar.stderr.text, { cause: error })
    })
    // A process that takes its place has its addresses.
    ports = [`listen.workers=${workers}`, `listen.admin=${admin}`]
    return { workers, admin }
  }
  const kill = async () => {
    sidecar.signal('SIGKILL')
    await sidecar.exited
  }
  const { workers, admin } = await start()
  const url = `ws://${workers}`
  const port = Number(workers.split(':').at(-1))
  const loops: AbortController[] = []
  const held: Socket[] = []
  const rest = (): void => {
    for (const loop of loops.splice(0)) loop.abort()
    for (const socket of held.splice(0)) socket.destroy()
  }

  return {
    api,
    directory,
    tokenFile,
    configFile,
    port,
    /** The target that Prometheus scrapes. */
    admin,
    start,
    kill,
    signal: (name: NodeJS.Signals) => sidecar.signal(name),
    abandonStdout: () => sidecar.abandonStdout(),
    get gateway() {
      return gateway
    },
    /** Another gateway at the same place. */
    replaceGateway: async (options: GatewayStubOptions = gatewayOptions) => {
      const { url: place } = gateway
      await gateway.close()
      gateway = await startGatewayStub({ ...options, port: Number(new URL(place).port) })
    },
    createPod: (name = 'worker-a', ip = '127.0.0.11', namespace = 'openclaw'): Pod =>
      api.createPod({
        namespace,
        name,
        serviceAccount: 'openclaw-worker',
        ips: [ip],
        nodeName: 'node-1',
      }),
    mint: (request: TokenRequest) => api.mintToken({ audiences: [AUDIENCE], ...request }),
    /** Tries to get in and leaves again. */
    attempt: async (token: string, localAddress = '127.0.0.11') => {
      const outcome = await connectWorker({ url, token, localAddress })
      if (outcome.ok) outcome.socket.terminate()
    },
    openStream: (token: string, localAddress = '127.0.0.11') =>
      openWorker({ url, token, localAddress }),
    /** Does something with this pause in between, until `rest`; failures are what it is about. */
    repeat: (everyMs: number, work: (nth: number) => Promise<unknown>): void => {
      const loop = new AbortController()
      loops.push(loop)
      void repeatUntil(loop.signal, everyMs, work)
    },
    /** Opens this many connections that say nothing, until `rest`. */
    hold: (count: number): void => {
      for (let n = 0; n < count; n += 1) held.push(openIdle(port))
    },
    rest,
    stop: async () => {
      rest()
      sidecar.signal('SIGCONT')
      await kill()
      await gateway.close()
      await api.stop()
      await rm(directory, { recursive: true })
    },
  }
}

const openIdle = (port: number): Socket =>
  connect({ port, host: '127.0.0.1', localAddress: HELD_ADDRESS }).on('error', () => {})

const repeatUntil = async (
  signal: AbortSignal,
  everyMs: number,
  work: (nth: number) => Promise<unknown>,
): Promise<void> => {
  for (let nth = 0; !signal.aborted; nth += 1) {
    await work(nth).catch(() => {})
    await sleep(everyMs)
  }
}
