/** One try to enter the gateway: dials it, and connects in words that this gateway knows. */

import type { Socket } from 'node:net'
import type { Code } from '../../denial.ts'
import { Fault } from '../../fault.ts'
import type { Clock } from '../../lib/clock.ts'
import { DeadlineError, withDeadline } from '../../lib/deadline.ts'
import type { Caller, GatewayDialer } from '../../tunnel/gateway-dialer.ts'
import type { GrantedDialContext } from '../dialect.ts'
import type { Device } from './device-key.ts'
import { PROTOCOL_MISMATCH, type ConnectRequest } from './frames.ts'
import {
  filterSurface,
  gatewayConnectFrame,
  type GatewayAuth,
  type Surface,
} from './gateway-connect.ts'
import { ConnectRefused, greetGateway, type Welcome } from './gateway-handshake.ts'
import type { GatewayTraits } from './gateway-traits.ts'

/** One worker that is entering. */
export type Entrant = {
  readonly caller: Caller
  /** The worker's own `connect`. */
  readonly request: ConnectRequest
  readonly context: GrantedDialContext
  readonly device: Device
  /** Called with what the gateway is about to be offered. */
  readonly onOffer: (surface: Surface) => void
}

export type GatewayEntryOptions = {
  readonly dial: GatewayDialer
  readonly traits: GatewayTraits
  /** For one handshake with the gateway, in milliseconds. */
  readonly handshakeTimeoutMs: number
  readonly messageBytesMax: number
  readonly clock: Clock
}

/** A gateway names one field of each object at a time, and no object has more that it may refuse. */
const FIELD_RETRIES_MAX = 6

/**
 * Connects, and again without the fields that the gateway refuses: it refuses the whole `connect`
 * for one. What it refused once, it is not sent again. Throws a `Fault`, or the signal's reason;
 * nothing then stays open at the gateway.
 */
export async function enterGateway(
  entrant: Entrant,
  auth: GatewayAuth,
  options: GatewayEntryOptions,
): Promise<Welcome> {
  for (let retries = 0; ; retries += 1) {
    try {
      return await enterOnce(entrant, auth, options)
    } catch (error) {
      if (!(error instanceof ConnectRefused)) throw error
      refuseProtocol(error, entrant, options.traits)
      const isWorthARetry = options.traits.learnFields(error.text)
      if (!isWorthARetry || retries === FIELD_RETRIES_MAX) throw error
    }
  }
}

/** An older gateway takes no older node: the node is told, as by the gateway itself. */
function refuseProtocol(
  { reason, protocolMin }: ConnectRefused,
  { context }: Entrant,
  traits: GatewayTraits,
): void {
  if (reason !== PROTOCOL_MISMATCH) return
  if (protocolMin !== undefined) traits.learnProtocolMin(protocolMin)
  endAdmission(context, 'protocol_mismatch')
}

/** Ends the admission with a denial. A `Fault` could say only that nobody knows. */
export function endAdmission({ revoke, signal }: GrantedDialContext, code: Code): never {
  revoke(code)
  signal.throwIfAborted()
  throw new Error('a revoked admission goes on')
}

async function enterOnce(
  entrant: Entrant,
  auth: GatewayAuth,
  options: GatewayEntryOptions,
): Promise<Welcome> {
  const { clock, dial, handshakeTimeoutMs, messageBytesMax } = options
  const { caller, context, request } = entrant
  const { signal } = context
  signal.throwIfAborted()
  const dialed = await dial(caller, context)
  try {
    const greeting = greetGateway({
      dialed,
      requestId: request.id,
      messageBytesMax,
      connectFrame: (challenge) => connectFrame({ entrant, auth, challenge, ...options }),
    })
    return await withDeadline(clock, handshakeTimeoutMs, () => greeting, signal)
  } catch (error) {
    // Only a closed socket is out of the way of the next session.
    await destroySocket(dialed.socket)
    signal.throwIfAborted()
    if (!(error instanceof DeadlineError)) throw error
    throw new Fault('gateway_unreachable', 'the gateway did not answer in time', { cause: error })
  }
}

type FrameParts = Pick<GatewayEntryOptions, 'traits'> & {
  readonly entrant: Entrant
  readonly auth: GatewayAuth
  readonly challenge: Parameters<typeof gatewayConnectFrame>[0]['challenge']
}

function connectFrame({ entrant, auth, challenge, traits }: FrameParts): string {
  const { request, context, device, onOffer } = entrant
  const { identity } = context
  const allowedCommands = context.allowedCommands()
  onOffer(filterSurface(request.params, allowedCommands))
  return gatewayConnectFrame({
    request,
    identity,
    allowedCommands,
    device,
    challenge,
    auth,
    unknownFields: traits.unknownFields,
    isHostingAllowed: context.isHostingAllowed?.() === true,
  })
}

export async function destroySocket(socket: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  socket.once('close', () => resolve(undefined))
  socket.destroy()
  if (!socket.closed) await promise
}
