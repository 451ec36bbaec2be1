/** The readiness check of the gateway: whether its address accepts a connection. */

import type { Clock } from '../lib/clock.ts'
import { endpointOf } from '../lib/address.ts'
import { systemNetwork, type Network } from '../lib/network.ts'

export type GatewayCheckOptions = {
  readonly url: URL
  readonly clock: Clock
  readonly connect?: Network['connect'] | undefined
}

const CONNECT_TIMEOUT_MS = 1000

/** How to fix what the check of the gateway's own address finds. */
export const GATEWAY_REMEDY = 'Start the gateway, or correct gateway.url.'

/** Connects and disconnects; resolves with what is wrong, or `undefined`. */
export function checkGateway({ url, clock, connect = systemNetwork.connect }: GatewayCheckOptions) {
  return new Promise<string | undefined>((resolve) => {
    const socket = connect(endpointOf(url))
    const settle = (objection: string | undefined) => {
      cancel()
      socket.destroy()
      resolve(objection)
    }
    const cancel = clock.after(CONNECT_TIMEOUT_MS, () => settle(`no answer from ${url.host}`))
    socket.once('connect', () => settle(undefined))
    socket.on('error', () => settle(`nothing listens on ${url.host}`))
  })
}
