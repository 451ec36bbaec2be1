/** The gateway dialer: from a proven identity to an open WebSocket that carries it in headers. */

import type { Socket } from 'node:net'
import type { Clock } from '../lib/clock.ts'
import { Fault } from '../fault.ts'
import type { Network } from '../lib/network.ts'
import type { Identity } from '../identity.ts'
import type { AssertionSigner } from './assertion.ts'
import { dialGateway, type GatewayConnection } from './dial.ts'
import { buildUpstreamRequest } from './headers.ts'
import { randomPool } from '../lib/random-pool.ts'

export type GatewayDialerOptions = {
  readonly url: URL
  /** For connecting and the gateway's answer together, in milliseconds. */
  readonly connectTimeoutMs: number
  /** The protocol workers use to reach us. */
  readonly workerProto: 'http' | 'https'
  readonly signer: AssertionSigner
  readonly clock: Clock
  readonly connect?: Network['connect'] | undefined
  /** Called with each socket before it connects. */
  readonly watchPeer: (socket: Socket) => void
  /** Told of every upgrade, whether it was given or not. */
  readonly onDialed?: ((fault: Fault | undefined) => void) | undefined
}

/** What the gateway is told about the caller besides its identity. */
export type Caller = {
  /** The peer address of its socket. */
  readonly address: string
  /** Our host name for the caller: as configured, or the address its socket connected to. */
  readonly host: string
  readonly userAgent: string | undefined
  readonly traceparent: string | undefined
  /** The subprotocols the gateway may choose from. */
  readonly subprotocols: readonly string[]
}

export type DialContext = {
  readonly identity: Identity
  readonly role: string
  readonly signal: AbortSignal
}

/** Throws a `Fault` when the gateway cannot be reached or refuses the stream. */
export type GatewayDialer = (caller: Caller, context: DialContext) => Promise<GatewayConnection>

export function createGatewayDialer(options: GatewayDialerOptions): GatewayDialer {
  const { url, connectTimeoutMs, workerProto, signer, clock, connect, watchPeer, onDialed } =
    options
  return async (caller, { identity, role, signal }) => {
    const request = buildUpstreamRequest({
      gatewayUrl: url,
      workerAddress: caller.address,
      workerProto,
      forwardedHost: caller.host,
      userAgent: caller.userAgent,
      traceparent: caller.traceparent,
      subprotocols: caller.subprotocols,
      identity,
      role,
      assertion: signer.sign(identity, role),
      key: randomPool.take(16).toString('base64'),
    })
    const { subprotocols } = caller
    const common = { url, request, subprotocols, clock, signal, connect, watchPeer }
    try {
      const dialed = await dialGateway({ ...common, timeoutMs: connectTimeoutMs })
      onDialed?.(undefined)
      return dialed
    } catch (error) {
      if (error instanceof Fault) onDialed?.(error)
      throw error
    }
  }
}
