/** Real nodes: `openclaw node run` as shipped, supervised as a kubelet does. */

import { execFileSync } from 'node:child_process'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { startProcess, type Exit, type Running } from './processes.ts'
import { PINNED, productCommand, productEnv, shellCommandOf, type Product } from './product.ts'

/**
 * How the worker hands its token over, as in the documentation; with `connect` it has none.
 */
export type Recipe = 'exec-secret-ref' | 'env-wrapper' | 'cf-header' | 'connect'

export type RealNodeOptions = {
  /** Default: the pinned version. */
  readonly product?: Product
  readonly name: string
  readonly home: string
  /** What the node dials: the pod's own address, which is then its source, or `connect`. */
  readonly address: string
  readonly port: number
  readonly recipe: Recipe
  readonly token: string
  readonly tlsFingerprint?: string
  /** Added to those of `node run`. */
  readonly extraArgs?: readonly string[]
  /** Set where a node of this version asks somebody before it runs a command. Default false. */
  readonly runsUnasked?: boolean
  /** User and group to run as; its home is given to it. */
  readonly uid?: number
}

export type RealNode = Awaited<ReturnType<typeof startRealNode>>

/** Codes that make a node wait for its operator for ever. */
export const PAUSING_CODES = [
  'PAIRING_REQUIRED',
  'AUTH_RATE_LIMITED',
  'AUTH_DEVICE_TOKEN_MISMATCH',
  'AUTH_SCOPE_MISMATCH',
]

const RESTART_DELAY_MS = 500
const RESTARTS_MAX = 20

export const startRealNode = async (options: RealNodeOptions) => {
  const { product = PINNED, name, home, recipe } = options
  const env = await productEnv(home)
  const tokenFile = join(home, 'token')
  const writeToken = (token: string) => writeFile(tokenFile, token, { mode: 0o644 })
  await writeToken(options.token)
  const config = {
    ...configOf(recipe, tokenFile),
    ...(options.runsUnasked === true ? { tools: { exec: { security: 'full', ask: 'off' } } } : {}),
  }
  await writeFile(env['OPENCLAW_CONFIG_PATH'] ?? '', JSON.stringify(config))

  const { address, port, tlsFingerprint, extraArgs = [], uid } = options
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${uid}`, home])
  const tls = tlsFingerprint === undefined ? [] : ['--tls', '--tls-fingerprint', tlsFingerprint]
  const args = ['node', 'run', '--host', address, '--port', String(port), ...tls, ...extraArgs]
  const startedAtMs = performance.now()
  const exits: Exit[] = []
  const runs: Running[] = []
  let isWanted = true
  let wake = () => {}
  let running: Running
  const exitWaiters = new Set<() => void>()

  const launch = (): Running => {
    const started = startProcess({
      ...commandOf({ product, name, recipe, args, env, tokenFile }),
      uid,
    })
    runs.push(started)
    return started
  }
  /** The kubelet's part: an ended process is started again, with the current content of the token file. */
  const supervise = async (): Promise<void> => {
    while (exits.length <= RESTARTS_MAX) {
      const exit = await running.exited
      exits.push(exit)
      for (const waiter of exitWaiters) waiter()
      exitWaiters.clear()
      if (isWanted) await pause()
      if (!isWanted) return
      // A container that restarts has lost what it wrote.
      await rm(join(home, 'state'), { recursive: true, force: true })
      running = launch()
    }
  }
  const pause = () =>
    new Promise<void>((resolve) => {
      wake = resolve
      setTimeout(resolve, RESTART_DELAY_MS)
    })
  running = launch()
  const supervised = supervise()

  return {
    name,
    address,
    startedAtMs,
    exits: exits as readonly Exit[],
    writeToken,
    tell: () => running.tell(),
    /** The output of all its runs so far. */
    said: () => runs.flatMap(({ lines, errors }) => [...lines, ...errors]).join('\n'),
    /** The next exit after the first `seen` ones. */
    exitAfter: async (seen: number): Promise<Exit> => {
      while (exits.length <= seen) await new Promise<void>((resolve) => exitWaiters.add(resolve))
      return exits[seen] ?? { code: null, signal: null }
    },
    stop: async (): Promise<void> => {
      isWanted = false
      wake()
      if (!running.hasExited()) await running.end('SIGKILL')
      await supervised
    },
  }
}

const configOf = (recipe: Recipe, tokenFile: string) => {
  if (recipe === 'connect') return { gateway: { mode: 'local' } }
  return recipe === 'exec-secret-ref'
    ? {
        gateway: {
          mode: 'local',
          auth: { mode: 'token', token: { source: 'exec', provider: 'sa', id: 'token' } },
        },
        secrets: {
          providers: {
            sa: { source: 'exec', command: '/usr/bin/cat', args: [tokenFile], jsonOnly: false },
          },
        },
      }
    : {}
}

type Launch = {
  readonly product: Product
  readonly name: string
  readonly recipe: Recipe
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly tokenFile: string
}

const VARIABLES = {
  'env-wrapper': 'OPENCLAW_GATEWAY_TOKEN',
  'cf-header': 'CF_ACCESS_CLIENT_SECRET',
}

const commandOf = ({ product, name, recipe, args, env, tokenFile }: Launch) => {
  if (recipe === 'connect') return productCommand({ product, name, args, env })
  const allowed = { ...env, OPENCLAW_ALLOW_INSECURE_PRIVATE_WS: '1' }
  if (recipe === 'exec-secret-ref') return productCommand({ product, name, args, env: allowed })
  // The shell reads the token at each start, so that a restart has the rotated one.
  const line = `${VARIABLES[recipe]}="$(cat '${tokenFile}')" exec ${shellCommandOf(product)} "$@"`
  const id = recipe === 'cf-header' ? { CF_ACCESS_CLIENT_ID: name } : {}
  return { name, command: '/bin/sh', args: ['-c', line, name, ...args], env: { ...allowed, ...id } }
}
