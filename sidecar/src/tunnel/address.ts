/** Peer addresses: one spelling for each, read from the socket alone. */

import { isIP } from 'node:net'

const V4_MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i

/** The address without its v4-mapped prefix or zone; `undefined` for anything that is none. */
export function normalizeAddress(address: string | undefined): string | undefined {
  if (address === undefined) return undefined
  const plain = V4_MAPPED.exec(address)?.[1] ?? address.replace(/%.*$/, '')
  return isIP(plain) === 0 ? undefined : plain.toLowerCase()
}

/** Where a `ws:` URL leads, as a socket takes it: an IPv6 host without its brackets. */
export const endpointOf = (url: URL): { readonly host: string; readonly port: number } => ({
  host: url.hostname.replace(/^\[|\]$/g, ''),
  port: url.port === '' ? 80 : Number(url.port),
})
