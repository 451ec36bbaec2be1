/** Decides who is shown the status: a caller on this machine, and no page of another site. */

import type { IncomingMessage } from 'node:http'
import { isLoopbackHost, normalizeAddress } from '../lib/address.ts'
import { findNetwork, HOST_ADDRESS, type Place } from '../lib/host-network.ts'

export type StatusCaller = Pick<IncomingMessage, 'headersDistinct' | 'socket'>

/** What a proxy adds: its request is somebody else's, whatever address it comes from. */
const OF_PROXIES = ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto']

/**
 * Whether both ends are on loopback. The same address at both ends is not enough: that is how the
 * proxy of a mesh passes on the requests of strangers.
 */
export function isOnLoopback(
  { headersDistinct: headers, socket }: StatusCaller,
  isLocalAddress: (address: string) => boolean,
): boolean {
  const ends = [socket.remoteAddress, socket.localAddress].map(normalizeAddress)
  const isLocal = ends.every((address) => address !== undefined && isLocalAddress(address))
  return isLocal && OF_PROXIES.every((name) => headers[name] === undefined)
}

/**
 * A page of another site that is open in a browser on this machine can reach the port. Where its
 * name points to loopback, that name is in the `Host`; otherwise it sends an `Origin`, or what the
 * browser says of the fetch (Fetch Metadata).
 */
export function isOfBrowserElsewhere({ headersDistinct: headers }: StatusCaller): boolean {
  const [host, ...others] = headers['host'] ?? []
  if (host === undefined || others.length > 0 || !isLoopbackHost(host)) return true
  const origins = headers['origin'] ?? []
  return origins.some((origin) => origin !== `http://${host}`)
}

/**
 * Whether a browser fetches for a page of another site. A link there may open the page in a window,
 * which that other page cannot read.
 */
export function isFetchedElsewhere({ headersDistinct: headers }: StatusCaller): boolean {
  const isOpened = headers['sec-fetch-dest']?.join() === 'document'
  const sites = headers['sec-fetch-site'] ?? []
  return !isOpened && sites.some((site) => site !== 'same-origin' && site !== 'none')
}

const OFF = {
  host: 'the status is off on the host network: every process of the node could read it',
  unset: `the status is off: ${HOST_ADDRESS} is not set, so the host network cannot be ruled out. Set it from status.hostIP`,
  invalid: `the status is off: ${HOST_ADDRESS} is not an IP address. Set it from status.hostIP`,
}

/** Why nobody is shown the status, in words; `undefined` where callers on this machine are. */
export function findStatusObjection({ env, interfaces = {} }: Partial<Place> & Pick<Place, 'env'>) {
  const network = findNetwork({ env, interfaces })
  return network === 'own' ? undefined : OFF[network]
}
