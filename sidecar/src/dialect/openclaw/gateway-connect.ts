/** The `connect` the gateway gets in place of the worker's: rebuilt, filtered and signed anew. */

import { globMatcher } from '../../glob.ts'
import type { Identity } from '../../identity.ts'
import type { Device } from './device-key.ts'
import { proofText } from './device-proof.ts'
import { PROTOCOL, type Challenge, type ConnectParams, type ConnectRequest } from './frames.ts'

/** What vouches for the connection at the gateway; with `{}` its headers do. */
export type GatewayAuth = {
  readonly token?: string
  readonly password?: string
  readonly bootstrapToken?: string
}

export type GatewayConnectOptions = {
  /** The worker's own. */
  readonly request: ConnectRequest
  readonly identity: Identity
  readonly allowedCommands: readonly string[]
  readonly device: Device
  readonly challenge: Challenge
  readonly auth: GatewayAuth
}

/** Capabilities whose commands go by another name. */
const COMMANDS_OF_CAPABILITY: Readonly<Record<string, readonly string[]>> = {
  'local-inference': ['ollama.'],
  file: ['file.', 'dir.'],
  system: ['system.', 'fs.'],
}

export function gatewayConnectFrame(options: GatewayConnectOptions): string {
  const { request, identity, device, challenge, auth } = options
  const { client, pathEnv, permissions, computerUse, locale, userAgent } = request.params
  const { namespace, serviceAccount, podName } = identity
  const params = {
    minProtocol: PROTOCOL,
    maxProtocol: PROTOCOL,
    client: {
      ...client,
      displayName: podName,
      instanceId: `system:serviceaccount:${namespace}:${serviceAccount}/${podName}`,
    },
    role: 'node',
    scopes: [],
    ...filterSurface(request.params, options.allowedCommands),
    permissions,
    computerUse,
    pathEnv,
    locale,
    userAgent,
  }
  const { nonce, ts: signedAt } = challenge
  const token = auth.token ?? auth.bootstrapToken ?? ''
  const text = proofText('v3', { deviceId: device.id, params, signedAt, token, nonce })
  const { id, publicKey } = device
  return JSON.stringify({
    type: 'req',
    id: request.id,
    method: 'connect',
    params: {
      ...params,
      ...(Object.keys(auth).length === 0 ? {} : { auth }),
      device: { id, publicKey, signature: device.sign(text), signedAt, nonce },
    },
  })
}

/** The commands the policy allows, and the capabilities that still have one of them. */
export function filterSurface(
  { commands = [], caps = [] }: Pick<ConnectParams, 'commands' | 'caps'>,
  allowedCommands: readonly string[],
): { readonly commands: readonly string[]; readonly caps: readonly string[] } {
  const allowed = commands.filter(allowanceOf(allowedCommands))
  if (allowed.length === commands.length) return { commands, caps }
  const isLeft = (capability: string) =>
    (COMMANDS_OF_CAPABILITY[capability] ?? [`${capability}.`]).some((prefix) =>
      allowed.some((command) => command.startsWith(prefix)),
    )
  return { commands: allowed, caps: caps.filter(isLeft) }
}

type Allowance = (command: string) => boolean

/** The policy hands out the same lists until the next reload: each is read once. */
const allowances = new WeakMap<readonly string[], Allowance>()

/** Whether a command matches one of the globs. */
export function allowanceOf(allowedCommands: readonly string[]): Allowance {
  const known = allowances.get(allowedCommands)
  if (known !== undefined) return known
  const matchers = allowedCommands.map(globMatcher)
  const allowance: Allowance = (command) => matchers.some((matches) => matches(command))
  allowances.set(allowedCommands, allowance)
  return allowance
}
