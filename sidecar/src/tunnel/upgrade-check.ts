/** Asks the gateway for an upgrade such as workers get, and goes no further. */

import { connect as connectTls } from 'node:tls'
import { GatewayRefused } from '../gateway-refusal.ts'
import { endpointOf } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import { systemNetwork } from '../lib/network.ts'
import { randomPool } from '../lib/random-pool.ts'
import { dialGateway, NoAnswer, type DialOptions, type GatewayConnection } from './dial.ts'
import { buildCheckUpgrade } from './headers.ts'

export type UpgradeCheckOptions = Pick<DialOptions, 'connect' | 'watchPeer'> & {
  readonly url: URL
  /** For the connection and the answer together, in milliseconds. */
  readonly timeoutMs: number
  readonly clock: Clock
}

/**
 * For documents (RFC 5737), so neither a worker nor a proxy has it. The gateway counts what it
 * refuses by this address, and no worker pays for it.
 */
const NOBODY = '192.0.2.1'

/**
 * Opens a WebSocket that carries no identity and says nothing: the gateway makes no device of it.
 * Throws as `dialGateway` does.
 */
export async function checkUpgrade(options: UpgradeCheckOptions): Promise<GatewayConnection> {
  const { url } = options
  const request = buildCheckUpgrade({
    gatewayUrl: url,
    workerAddress: NOBODY,
    workerProto: 'http',
    forwardedHost: url.host,
    key: randomPool.take(16).toString('base64'),
  })
  try {
    return await dialGateway({ ...options, request, subprotocols: [] })
  } catch (error) {
    if (error instanceof NoAnswer && (await speaksTls(options))) throw new GatewayRefused('tls', '')
    throw error
  }
}

/** Nothing is sent but the greeting of TLS, so it does not matter whose certificate comes back. */
async function speaksTls(options: UpgradeCheckOptions): Promise<boolean> {
  const { url, timeoutMs, clock, connect = systemNetwork.connect } = options
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const plain = connect({ ...endpointOf(url) })
  plain.on('error', () => resolve(false))
  const socket = connectTls({ socket: plain, rejectUnauthorized: false })
  const cancel = clock.after(timeoutMs, () => resolve(false))
  socket.once('secureConnect', () => resolve(true))
  socket.on('error', () => resolve(false))
  socket.once('close', () => resolve(false))
  return promise.finally(() => {
    cancel()
    socket.destroy()
    plain.destroy()
  })
}
