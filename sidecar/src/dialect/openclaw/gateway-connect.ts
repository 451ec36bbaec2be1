/** The `connect` the gateway gets instead of the worker's: rebuilt, filtered and signed again. */

import { isDeepStrictEqual } from 'node:util'
import { globMatcher } from '../../lib/glob.ts'
import { userNameOf, type Identity } from '../../identity.ts'
import type { Device } from './device-key.ts'
import { proofText } from './device-proof.ts'
import {
  MODEL_CATALOG,
  NODE_PROTOCOL_MIN,
  PROTOCOL,
  type Challenge,
  type ConnectParams,
  type ConnectRequest,
} from './frames.ts'
import type { OptionalField } from './gateway-traits.ts'

/** What authenticates the connection at the gateway; with `{}` its headers do. */
export type GatewayAuth = {
  readonly token?: string
  readonly password?: string
  readonly bootstrapToken?: string
}

export type GatewayConnectOptions = {
  /** The worker's own `connect`. */
  readonly request: ConnectRequest
  readonly identity: Identity
  readonly allowedCommands: readonly string[]
  readonly device: Device
  readonly challenge: Challenge
  readonly auth: GatewayAuth
  /** Fields that this gateway refuses. Default none. */
  readonly unknownFields?: ReadonlySet<OptionalField>
  /** Whether the policy lets the worker host sessions. Default false. */
  readonly isHostingAllowed?: boolean
}

/** What a node offers: commands, and what belongs to them. */
export type Surface = Pick<ConnectParams, 'commands' | 'caps' | 'permissions' | 'computerUse'>

/** Capabilities whose commands have another name. A Map, since the worker chooses the name. */
const COMMANDS_OF_CAPABILITY: ReadonlyMap<string, readonly string[]> = new Map([
  ['local-inference', ['ollama.']],
  ['file', ['file.', 'dir.']],
  ['system', ['system.', 'fs.']],
])
/** The prefix of the commands that a `computerUse` descriptor describes. */
const COMPUTER_PREFIX = 'computer.'
/** Allows every command, and everything else a node offers. */
const EVERYTHING = /^\*+$/

export function gatewayConnectFrame(options: GatewayConnectOptions): string {
  const { request, identity, device, challenge, auth } = options
  const { client, pathEnv, locale, userAgent } = request.params
  const { namespace, serviceAccount, podName } = identity
  const params = {
    // Never more than the worker itself can read, since it gets the gateway's own hello.
    minProtocol: Math.max(request.params.minProtocol, NODE_PROTOCOL_MIN),
    maxProtocol: Math.min(request.params.maxProtocol, PROTOCOL),
    client: {
      ...client,
      displayName: podName,
      instanceId: `${userNameOf({ namespace, serviceAccount })}/${podName}`,
    },
    role: 'node',
    scopes: [],
    ...filterSurface(request.params, options.allowedCommands),
    ...filterExtras(request.params, options),
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
      ...omitFields(params, options.unknownFields ?? new Set()),
      ...(Object.keys(auth).length === 0 ? {} : { auth }),
      device: { id, publicKey, signature: device.sign(text), signedAt, nonce },
    },
  })
}

/** What only newer gateways and nodes know, as far as the policy allows it. */
function filterExtras(
  { modelCatalog, workerRuns }: ConnectParams,
  { allowedCommands, challenge, isHostingAllowed = false }: GatewayConnectOptions,
) {
  const isCatalogWanted =
    challenge.capabilities?.includes(MODEL_CATALOG) === true &&
    allowanceOf(allowedCommands).isEverything
  return {
    ...(isCatalogWanted ? { modelCatalog } : {}),
    ...(isHostingAllowed ? { workerRuns } : {}),
  }
}

type Members = Readonly<Record<string, unknown>>

function omitFields(
  { client, ...params }: Members & { readonly client: Members },
  fields: ReadonlySet<string>,
): Members {
  const isKnownOf = (prefix: string) => (name: string) => !fields.has(`${prefix}${name}`)
  return {
    ...pickMembers(params, isKnownOf('')),
    client: pickMembers(client, isKnownOf('client.')),
  }
}

/**
 * The commands that the policy allows, and of the rest what belongs to one of them: a capability
 * and a `computerUse` with their commands, a permission with the command of its name. Anything that
 * cannot be matched is withheld, unless the policy allows everything.
 */
export function filterSurface(
  surface: Surface,
  allowedCommands: readonly string[],
): Surface & { readonly commands: string[]; readonly caps: string[] } {
  const { commands = [], caps = [], permissions, computerUse } = surface
  const { isEverything, isAllowed } = allowanceOf(allowedCommands)
  const allowed = commands.filter(isAllowed)
  const isLeft = (prefix: string) => allowed.some((command) => command.startsWith(prefix))
  const isCapable = (capability: string) =>
    isEverything || (COMMANDS_OF_CAPABILITY.get(capability) ?? [`${capability}.`]).some(isLeft)
  return {
    commands: allowed,
    caps: caps.filter(isCapable),
    ...(permissions === undefined ? {} : { permissions: pickMembers(permissions, isAllowed) }),
    ...(computerUse !== undefined && (isEverything || isLeft(COMPUTER_PREFIX))
      ? { computerUse }
      : {}),
  }
}

/**
 * Whether the policy allows all of a surface. Without a list of commands nothing says what it is.
 */
export function isSurfaceAllowed(surface: Surface, allowedCommands: readonly string[]): boolean {
  if (allowanceOf(allowedCommands).isEverything) return true
  if (surface.commands === undefined) return false
  return isDeepStrictEqual(filterSurface(surface, allowedCommands), filterSurface(surface, ['*']))
}

const pickMembers = <T>(
  members: Readonly<Record<string, T>>,
  isPicked: (name: string) => boolean,
): Record<string, T> =>
  Object.fromEntries(Object.entries(members).filter(([name]) => isPicked(name)))

type Allowance = {
  /** Whether every name is allowed. */
  readonly isEverything: boolean
  /** Whether a command matches one of the globs. */
  readonly isAllowed: (command: string) => boolean
}

/** The policy returns the same lists until the next reload, so each is compiled once. */
const allowances = new WeakMap<readonly string[], Allowance>()

function allowanceOf(allowedCommands: readonly string[]): Allowance {
  const known = allowances.get(allowedCommands)
  if (known !== undefined) return known
  const isEverything = allowedCommands.some((glob) => EVERYTHING.test(glob))
  const matchers = allowedCommands.map(globMatcher)
  const isAllowed = (command: string) =>
    isEverything || matchers.some((matches) => matches(command))
  const allowance: Allowance = { isEverything, isAllowed }
  allowances.set(allowedCommands, allowance)
  return allowance
}
