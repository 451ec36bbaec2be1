/** Where a mistake is played: an API server, a gateway and a configuration, and the commands on them. */

import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { run as checkConfig } from '@openclaw-k8s/auth-sidecar/commands/check-config.ts'
import { run as doctor } from '@openclaw-k8s/auth-sidecar/commands/doctor.ts'
import { run as status } from '@openclaw-k8s/auth-sidecar/commands/status.ts'
import { systemClock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { listDialable } from '@openclaw-k8s/auth-sidecar/lib/own-addresses.ts'
import { startGatewayStub, type GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { findFreePort } from '../kit/free-port.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import { runCommand } from '../kit/run-command.ts'
import { startSidecarProcess, type SidecarProcess } from '../kit/sidecar-process.ts'
import { waitForProcess } from '../kit/wait.ts'
import { connectWorker } from '../kit/worker-client.ts'

export const SECRET = 'the-secret-of-the-gateway-itself'
const ACCOUNT = 'openclaw-worker'
const SEED = 'a-seed-of-more-than-sixteen-bytes'
const WAIT_MS_MAX = 30_000

/** A mistake, and the commands with which an operator looks for it. */
export type Misconfiguration = {
  readonly number: number
  readonly mistake: string
  readonly site?: SiteOptions
  readonly play: (site: Site) => Promise<void>
}

/** One command as it was run. */
export type Look = {
  readonly command: string
  /** `null` for a sidecar that was running. */
  readonly exitCode: number | null
  readonly exitExpected: number | null
  readonly lines: readonly string[]
  /** What has to be said: where the mistake is … what is wrong … how to fix it. */
  readonly told: string
}

/** The parts of what has to be said, each of which is in one line. */
export const partsOf = (told: string): readonly string[] => told.split(' … ')

export type SiteOptions = {
  /** Default: an echo server. `openclaw` is a gateway with pairing and `SECRET`. */
  readonly gateway?: GatewayStubOptions | 'openclaw'
  /** Default `stream`. */
  readonly protocol?: 'stream' | 'openclaw'
}

type RunOptions = {
  /** Default: the site's own. */
  readonly config?: string
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

const COMMANDS = { 'check-config': checkConfig, doctor, status }
type Command = keyof typeof COMMANDS | 'serve'

export type Site = Awaited<ReturnType<typeof startSite>>

export const startSite = async ({ gateway, protocol = 'stream' }: SiteOptions) => {
  const directory = await mkdtemp(join(tmpdir(), 'misconfiguration-'))
  let apiAheadMs = 0
  const api = await startKubeApi({
    clock: { ...systemClock, now: () => systemClock.now() + apiAheadMs },
  })
  api.createServiceAccount('openclaw', ACCOUNT)
  const stubOptions = gateway === 'openclaw' ? createPairedDevices(SECRET).gateway : gateway
  const stub = await startGatewayStub(stubOptions)
  const files = await api.files(directory)
  const [workers, admin] = [await findFreePort(), await findFreePort()]
  const running: SidecarProcess[] = []
  const looks: Look[] = []

  const write = async (name: string, text: string): Promise<string> => {
    await writeFile(join(directory, name), text)
    return join(directory, name)
  }
  const configFile = join(directory, 'config.yaml')
  const document = {
    listen: { workers: `127.0.0.1:${workers}`, admin: `127.0.0.1:${admin}` },
    gateway: {
      url: `ws://127.0.0.1:${stub.port}`,
      protocol,
      auth: { secretFile: await write('secret', SECRET) },
      deviceSeedFile: await write('seed', SEED),
    },
    kubernetes: { apiServer: api.url, caFile: files.caFile, tokenFile: files.tokenFile },
    k8sTrust: { allowedIdentities: [{ namespace: 'openclaw', serviceAccount: ACCOUNT }] },
    limits: { streams: 100 },
    drain: { window: '0s' },
  }
  await write('config.yaml', JSON.stringify(document, undefined, 2))

  const within = (text: string) => text.replaceAll(`${directory}/`, '')
  const keep = (
    name: string,
    { config = configFile, args = [], env = {} }: RunOptions,
    { text, ...ended }: Pick<Look, 'exitCode' | 'exitExpected' | 'told'> & { text: string },
  ) => {
    const words = [
      ...Object.entries(env).map((pair) => pair.join('=')),
      `auth-sidecar ${name} --config ${config}`,
      ...args.map((arg) => (arg.includes(' ') ? `'${arg}'` : arg)),
    ]
    const lines = within(text).trimEnd().split('\n')
    looks.push({ command: within(words.join(' ')), lines, ...ended })
  }
  const serve = async (options: RunOptions) => {
    const { args = [], env = {} } = options
    const sidecar = startSidecarProcess(['serve', '--config', configFile, ...args], { env })
    running.push(sidecar)
    return sidecar
  }

  return {
    api,
    directory,
    looks: looks as readonly Look[],
    gatewayPort: stub.port,
    workers,
    write,
    /** Puts the API server's clock this far ahead of ours, and has it issue another token for us. */
    setApiAhead: async (ms: number) => {
      apiAheadMs = ms
      await api.files(directory)
    },
    /** Runs a command to its end, `serve` in its own process. */
    run: async (name: Command, exitExpected: number, told: string, options: RunOptions = {}) => {
      const { config = configFile, args = [], env = {} } = options
      if (name === 'serve') {
        const { exited, stdout, stderr } = await serve(options)
        const { code } = await exited
        keep(name, options, { exitCode: code, exitExpected, told, text: stdout.text + stderr.text })
        return
      }
      const argv = ['--config', config, ...args]
      const addresses = listDialable(networkInterfaces())
      const { exitCode, stdout, stderr } = await runCommand(COMMANDS[name], {
        argv,
        env,
        addresses,
      })
      keep(name, options, { exitCode: exitCode ?? null, exitExpected, told, text: stdout + stderr })
    },
    /** Starts `serve`, waits until its log has said everything, and stops it. */
    watchLog: async (told: string, options: RunOptions = {}) => {
      const { stderr, signal, exited, listening } = await serve(options)
      await listening()
      const hasSaid = () => partsOf(told).every((part) => stderr.text.includes(part))
      // What was not said shows when the look is judged.
      await waitForProcess('the log says it', WAIT_MS_MAX, hasSaid).catch(() => {})
      signal('SIGTERM')
      await exited
      keep('serve', options, { exitCode: null, exitExpected: null, told, text: stderr.text })
    },
    /** Starts `serve` for the other commands to look at. */
    serve: async (options: RunOptions = {}) => {
      await (await serve(options)).listening()
      const isReady = async () => (await fetch(`http://127.0.0.1:${admin}/readyz`)).ok
      await waitForProcess('the sidecar is ready', WAIT_MS_MAX, isReady)
    },
    /** A worker of this pod connects from an address, by default its own, and is refused. */
    refuse: async (name: string, ip: string, worker: WorkerOptions = {}) => {
      const { from = ip, audiences = ['openclaw-gateway'] } = worker
      const pod = api.createPod({
        namespace: 'openclaw',
        name,
        serviceAccount: ACCOUNT,
        ips: [ip],
        nodeName: 'node-1',
        phase: 'Running',
      })
      const token = api.mintToken({ pod, audiences })
      const url = `ws://127.0.0.1:${workers}`
      const outcome = await connectWorker({ url, localAddress: from, token })
      if (outcome.ok) throw new Error(`${name} was let in`)
    },
    stop: async () => {
      for (const { signal } of running) signal('SIGTERM')
      await Promise.all(running.map(({ exited }) => exited))
      await stub.close()
      await api.stop()
      await rm(directory, { recursive: true })
    },
  }
}

type WorkerOptions = {
  readonly from?: string
  readonly audiences?: readonly string[]
}

/** Takes a port for as long as `work` lasts. */
export const holdPort = async (port: number, work: () => Promise<void>): Promise<void> => {
  const server = createServer()
  await once(server.listen(port, '127.0.0.1'), 'listening')
  try {
    await work()
  } finally {
    server.close()
  }
}
