/** A real OpenClaw gateway in its own process, in either of its auth modes. */

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { waitForProcess } from '../kit/wait.ts'
import { readConfigSchema, type ConfigSchema } from './config-schema.ts'
import { modelsAt } from './model.ts'
import { connectOperator } from './operator.ts'
import { callProduct, PINNED, productEnv, startProduct, type Product } from './product.ts'

export type GatewayMode = 'token' | 'trusted-proxy'

export type GatewayOptions = {
  /** Default: the pinned version. */
  readonly product?: Product
  readonly mode: GatewayMode
  readonly port: number
  /** Holds its state over restarts. */
  readonly home: string
  /** Users the trusted proxy may name. */
  readonly users: readonly string[]
  /** Where its models are; default: it has none. */
  readonly modelUrl?: string | undefined
  /** Whose forwarded headers it takes; default: loopback, which the sidecar is. */
  readonly trustedProxies?: readonly string[]
}

export const GATEWAY_SECRET = 'the-shared-secret-of-the-gateway'

/** A gateway is ready after ten seconds on an idle machine, and many times that on a busy one. */
const READY_LIMIT_MS = 180_000
const STOP_LIMIT_MS = 30_000
/** How long the command line waits for the gateway: six times its default, for a busy machine. */
const CLI_TIMEOUT_MS = '60000'
/** The command line of a gateway of 2026.5 has a device, whose scopes are approved one after another. */
const SCOPES_WANTED = /scope upgrade pending approval \(requestId: ([0-9a-f-]+)\)/u

export const startGateway = async (options: GatewayOptions) => {
  const { product = PINNED, mode, port, home } = options
  const schema = await readConfigSchema(product, home)
  const env = await productEnv(home)
  await writeFile(`${home}/openclaw.json`, JSON.stringify(configOf(options, schema)))
  const url = `ws://127.0.0.1:${port}`
  const launch = () =>
    startProduct({
      name: 'gateway',
      product,
      args: ['gateway', 'run', '--port', String(port)],
      env,
    })
  let running = launch()

  const ready = () =>
    waitForProcess('the gateway is ready', READY_LIMIT_MS, async () => {
      assert.ok(!running.hasExited(), `the gateway ended:\n${running.tell()}`)
      const answer = await fetch(`http://127.0.0.1:${port}/readyz`)
      return ((await answer.json()) as { ready?: boolean }).ready === true
    })
  await ready().catch(async (error: unknown) => {
    // Nobody else could end it.
    await running.end('SIGKILL')
    throw error
  })

  const secret = mode === 'token' ? { token: GATEWAY_SECRET } : { password: GATEWAY_SECRET }
  // The CLI sends a token or a password as the gateway's mode has it, read from its configuration.
  const cliEnv = {
    ...env,
    ...(mode === 'token' ? {} : { OPENCLAW_GATEWAY_PASSWORD: GATEWAY_SECRET }),
  }
  const cliSecret = mode === 'token' ? ['--token', GATEWAY_SECRET] : []
  return {
    url,
    port,
    mode,
    product,
    env,
    tell: () => running.tell(),
    /** All that this process has said. */
    said: (): string => [...running.lines, ...running.errors].join('\n'),
    connectOperator: (limitMs?: number) => connectOperator(url, secret, limitMs),
    /** `openclaw …` as the owner types it on the gateway's machine, who approves what it asks for. */
    cli: async (...args: readonly string[]): Promise<string> => {
      const call = () =>
        callProduct({
          product,
          args: [...args, '--timeout', CLI_TIMEOUT_MS, ...cliSecret],
          env: cliEnv,
        })
      try {
        return await call()
      } catch (error) {
        const [, requestId] = SCOPES_WANTED.exec(String(error)) ?? []
        if (requestId === undefined) throw error
        const owner = await connectOperator(url, secret)
        await owner.call('device.pair.approve', { requestId })
        await owner.close()
        return call()
      }
    },
    stop: (signal: NodeJS.Signals = 'SIGTERM') => running.end(signal, STOP_LIMIT_MS),
    /** To all its processes. */
    signal: (name: NodeJS.Signals): void => running.signal(name),
    start: async (): Promise<void> => {
      running = launch()
      await ready()
    },
  }
}

const configOf = (
  { mode, port, users, modelUrl, trustedProxies = ['127.0.0.1', '::1'] }: GatewayOptions,
  schema: ConfigSchema,
) => ({
  gateway: {
    mode: 'local',
    bind: 'loopback',
    port,
    auth: mode === 'token' ? { mode, token: GATEWAY_SECRET } : trustedProxyAuth(users),
    trustedProxies,
    ...pairingOf(mode, schema),
  },
  discovery: { mdns: { mode: 'off' } },
  update: { checkOnStart: false },
  ...(modelUrl === undefined ? {} : modelsAt(modelUrl)),
})

/** Optional hardening, where the version knows it: a gateway ends over a key that it does not know. */
const pairingOf = (mode: GatewayMode, { knows }: ConfigSchema) => {
  // In trusted-proxy mode `autoApproveLocal: false` would stop the owner's own CLI as well.
  const wanted = { sshVerify: false, ...(mode === 'token' ? { autoApproveLocal: false } : {}) }
  const known = Object.entries(wanted).filter(([key]) => knows(`gateway.nodes.pairing.${key}`))
  return known.length === 0 ? {} : { nodes: { pairing: Object.fromEntries(known) } }
}

const trustedProxyAuth = (users: readonly string[]) => ({
  mode: 'trusted-proxy',
  password: GATEWAY_SECRET,
  trustedProxy: {
    userHeader: 'x-forwarded-user',
    requiredHeaders: ['x-forwarded-proto'],
    allowLoopback: true,
    allowUsers: users,
  },
})
