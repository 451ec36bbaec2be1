/** The gateway's routes of session hosting: what a hosting pod reaches there, and nothing else. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Code } from '../denial.ts'
import type { Clock } from '../lib/clock.ts'
import type { Network } from '../lib/network.ts'
import type { Semaphore } from '../lib/semaphore.ts'
import { randomPool } from '../lib/random-pool.ts'
import { dialGateway, type GatewayConnection } from './dial.ts'
import {
  buildHostedUpgrade,
  buildTransferRequest,
  type HostedCall,
  type UpstreamTransfer,
} from './headers.ts'
import { Transfer, type TransferSummary } from './transfer.ts'

export type HostedGatewayOptions = {
  readonly url: URL
  /** For connecting, and for the answer to an upgrade, in milliseconds. */
  readonly connectTimeoutMs: number
  /** The protocol workers use to reach us. */
  readonly workerProto: 'http' | 'https'
  readonly clock: Clock
  readonly connect?: Network['connect'] | undefined
  /** Bounds the upgrades under way at the gateway. */
  readonly handshakes: Pick<Semaphore, 'acquire'>
  /** Called with each socket before it connects. */
  readonly watchPeer: (socket: Socket) => void
}

/** Where a call came from: the peer address of its socket, and our host name for it. */
export type HostedSource = { readonly address: string; readonly host: string }

/** A worker's request and the answer to it. */
export type HostedExchange = {
  readonly call: HostedCall
  readonly source: HostedSource
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Answers the worker in the gateway's place. */
  readonly refuse: (code: Code) => void
  readonly onClose: (summary: TransferSummary) => void
}

export class HostedGateway {
  readonly #options: HostedGatewayOptions

  constructor(options: HostedGatewayOptions) {
    this.#options = options
  }

  /** Opens a WebSocket. Throws a `Fault` when the gateway cannot be reached or refuses it. */
  async dial(
    call: HostedCall,
    source: HostedSource,
    signal: AbortSignal,
  ): Promise<GatewayConnection> {
    const { url, connectTimeoutMs, clock, connect, handshakes, watchPeer } = this.#options
    const { target, authorization } = call
    const key = randomPool.take(16).toString('base64')
    const request = buildHostedUpgrade({ ...this.#forwarded(source), target, authorization, key })
    const release = await handshakes.acquire(signal)
    return dialGateway({
      url,
      request,
      subprotocols: [],
      timeoutMs: connectTimeoutMs,
      clock,
      signal,
      connect,
      watchPeer,
    }).finally(release)
  }

  /** Relays a request and its answer. Synchronous: nothing of it has been sent before. */
  transfer({ call, source, ...exchange }: HostedExchange): Transfer {
    const { url, connectTimeoutMs, clock, connect, watchPeer } = this.#options
    const upstream: UpstreamTransfer = buildTransferRequest({ ...this.#forwarded(source), ...call })
    const transfer = new Transfer({
      ...exchange,
      upstream,
      url,
      connectTimeoutMs,
      clock,
      connect,
      watchPeer,
    })
    transfer.start()
    return transfer
  }

  #forwarded({ address, host }: HostedSource) {
    const { url, workerProto } = this.#options
    return { gatewayUrl: url, workerAddress: address, workerProto, forwardedHost: host }
  }
}
