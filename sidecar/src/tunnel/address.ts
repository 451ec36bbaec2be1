/** Peer addresses: one spelling for each, read from the socket alone. */

import { isIP } from 'node:net'

const V4_MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i

/** The address without its v4-mapped prefix or zone; `undefined` for anything that is none. */
export function normalizeAddress(address: string | undefined): string | undefined {
  if (address === undefined) return undefined
  const plain = V4_MAPPED.exec(address)?.[1] ?? address.replace(/%.*$/, '')
  return isIP(plain) === 0 ? undefined : plain.toLowerCase()
}
