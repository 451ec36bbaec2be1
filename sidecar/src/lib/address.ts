/** Peer addresses: one spelling for each, read only from the socket. */

import { BlockList, isIP, type Socket } from 'node:net'

const V4_MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i

/** The address without its v4-mapped prefix or zone; `undefined` if it is not an IP address. */
export function normalizeAddress(address: string | undefined): string | undefined {
  if (address === undefined) return undefined
  const plain = V4_MAPPED.exec(address)?.[1] ?? address.replace(/%.*$/, '')
  return isIP(plain) === 0 ? undefined : plain.toLowerCase()
}

/** The local `host:port` that the peer connected to; `undefined` once the socket is gone. */
export function localHostOf(
  socket: Pick<Socket, 'localAddress' | 'localPort'>,
): string | undefined {
  const address = normalizeAddress(socket.localAddress)
  if (address === undefined || socket.localPort === undefined) return undefined
  return `${isIP(address) === 6 ? `[${address}]` : address}:${socket.localPort}`
}

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/** Whether a normalized address is one of the loopback interface. */
export const isLoopback = (address: string): boolean =>
  LOOPBACK.check(address, address.includes(':') ? 'ipv6' : 'ipv4')

const HOST = /^(localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/i

/**
 * Whether the value of a `Host` header names loopback. A browser sends the name that it was given:
 * one that its owner points to loopback (DNS rebinding) is not among these.
 */
export function isLoopbackHost(host: string): boolean {
  const name = HOST.exec(host)?.[1]?.toLowerCase()
  if (name === undefined) return false
  if (name === 'localhost') return true
  const address = normalizeAddress(name.replace(/^\[|\]$/g, ''))
  return address !== undefined && isLoopback(address)
}

const DEFAULT_PORTS = { 'ws:': 80, 'wss:': 443 } as const

/** Host and port of a `ws:` or `wss:` URL, as a socket takes them: an IPv6 host without its brackets. */
export const endpointOf = (url: URL): { readonly host: string; readonly port: number } => ({
  host: url.hostname.replace(/^\[|\]$/g, ''),
  port:
    url.port === '' ? DEFAULT_PORTS[url.protocol === 'wss:' ? 'wss:' : 'ws:'] : Number(url.port),
})
