/** The sidecar as it ships: a separate process with a configuration file. */

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { waitForProcess } from '../kit/wait.ts'
import type { GatewayMode } from './gateway.ts'
import { runToEnd, startProcess } from './processes.ts'

export type SidecarOptions = {
  readonly directory: string
  readonly gatewayUrl: string
  readonly mode: GatewayMode
  readonly secret: string
  readonly kubernetes: {
    readonly apiServer: string
    readonly caFile: string
    readonly tokenFile: string
  }
  readonly ports: { readonly workers: number; readonly admin: number }
  /** The `k8sTrust` section, in addition to what the suite always sets. */
  readonly trust: Readonly<Record<string, unknown>>
  /** Default false. */
  readonly sessionHosting?: boolean
  readonly tls?: { readonly certFile: string; readonly keyFile: string }
  /** What runs in place of the checkout's own `main.ts`, such as a bundle of it. */
  readonly main?: string
  /** What `/readyz?verbose` has in it once it has started. Default: that it is ready. */
  readonly expected?: string
}

export type AuditLine = Readonly<Record<string, unknown>> & { readonly event: string }

const MAIN = join(import.meta.dirname, '../../sidecar/src/main.ts')
const READY_LIMIT_MS = 20_000
const DOCTOR_LIMIT_MS = 60_000
const READY = '\nok\n'

export const startSidecar = async (options: SidecarOptions) => {
  const { directory, ports, main = MAIN, expected = READY } = options
  await mkdir(directory, { recursive: true })
  const secretFile = join(directory, 'gateway-secret')
  const deviceSeedFile = join(directory, 'device-seed')
  await writeFile(secretFile, options.secret, { mode: 0o600 })
  await writeFile(deviceSeedFile, randomBytes(32).toString('hex'), { mode: 0o600 })
  const configFile = join(directory, 'config.json')
  const configure = (trust: Readonly<Record<string, unknown>>) =>
    writeFile(
      configFile,
      JSON.stringify(configOf({ ...options, trust }, { secretFile, deviceSeedFile })),
    )
  await configure(options.trust)

  const adminUrl = `http://127.0.0.1:${ports.admin}`
  const launch = () =>
    startProcess({
      name: 'sidecar',
      command: process.execPath,
      args: [main, 'serve', '--config', configFile],
    })
  const readyz = async () => {
    const answer = await fetch(`${adminUrl}/readyz?verbose`)
    return answer.text()
  }
  let running = launch()
  const past: string[] = []
  const ready = () =>
    waitForProcess(`the sidecar says ${expected.trim()}`, READY_LIMIT_MS, async () => {
      assert.ok(!running.hasExited(), `the sidecar ended:\n${running.tell()}`)
      const said = await readyz()
      if (!said.includes(expected)) throw new Error(said)
      return true
    })
  await ready()

  return {
    tell: () => running.tell(),
    /** The output of all its processes so far. */
    said: () => [...past, ...running.lines, ...running.errors].join('\n'),
    audit: (): readonly AuditLine[] =>
      [...past, ...running.lines]
        .filter((line) => line.startsWith('{') && line.includes('"log":"audit"'))
        .map((line) => JSON.parse(line) as AuditLine),
    /** What `doctor` prints, whatever it finds. */
    doctor: async (): Promise<string> => {
      const args = [main, 'doctor', '--config', configFile]
      const call = { name: 'doctor', command: process.execPath, args }
      return (await runToEnd(call, DOCTOR_LIMIT_MS)).output
    },
    hasExited: (): boolean => running.hasExited(),
    signal: (name: NodeJS.Signals): void => running.signal(name),
    metrics: async () => (await fetch(`${adminUrl}/metrics`)).text(),
    stop: async (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
      if (!running.hasExited()) await running.end(signal)
      past.push(...running.lines, ...running.errors)
    },
    /** Starts another process, with another `k8sTrust` section where one is given. */
    start: async (trust: Readonly<Record<string, unknown>> = options.trust): Promise<void> => {
      await configure(trust)
      running = launch()
      await ready()
    },
  }
}

const configOf = (
  options: SidecarOptions,
  files: { readonly secretFile: string; readonly deviceSeedFile: string },
) => ({
  listen: {
    // Every pod of the suite dials its own address, so that it has it as its source.
    workers: `0.0.0.0:${options.ports.workers}`,
    admin: `127.0.0.1:${options.ports.admin}`,
    ...(options.tls === undefined ? {} : { tls: options.tls }),
  },
  gateway: {
    url: options.gatewayUrl,
    protocol: 'openclaw',
    auth: { mode: options.mode, secretFile: files.secretFile },
    deviceSeedFile: files.deviceSeedFile,
    // Two gateways and many nodes share the machine of the suite.
    connectTimeout: '15s',
    sessionHosting: options.sessionHosting ?? false,
  },
  kubernetes: options.kubernetes,
  k8sTrust: options.trust,
  // The suite is many workers behind few addresses, all at once.
  limits: { failuresPerAddress: 0 },
  drain: { window: '1s' },
})
