/** IP addresses: one spelling for each, and the networks they belong to. */

import { BlockList, isIP, SocketAddress, type Socket } from 'node:net'

/** How a socket that serves both families names an IPv4 peer. */
const V4_MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/

/**
 * The address as the kernel spells it, without a zone, and as IPv4 if it is v4-mapped; `undefined`
 * if it is not an IP address.
 */
export function normalizeAddress(address: string | undefined): string | undefined {
  if (address === undefined) return undefined
  const plain = address.replace(/%.*$/, '')
  const family = isIP(plain)
  if (family !== 6) return family === 4 ? plain : undefined
  const spelled = new SocketAddress({ address: plain, family: 'ipv6' }).address
  return V4_MAPPED.exec(spelled)?.[1] ?? spelled
}

/** The host as it is in a URL and in `host:port`: an IPv6 address in brackets. */
export const bracketed = (host: string): string => (isIP(host) === 6 ? `[${host}]` : host)

/** The host without the brackets of an IPv6 address, as a socket takes it. */
export const unbracketed = (host: string): string => host.replace(/^\[|\]$/g, '')

/** The local `host:port` that the peer connected to; `undefined` once the socket is gone. */
export function localHostOf(
  socket: Pick<Socket, 'localAddress' | 'localPort'>,
): string | undefined {
  const address = normalizeAddress(socket.localAddress)
  if (address === undefined || socket.localPort === undefined) return undefined
  return `${bracketed(address)}:${socket.localPort}`
}

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/** Whether a normalized address is one of the loopback interface. */
export const isLoopback = (address: string): boolean => isListed(LOOPBACK, address)

/** RFC 1918, the shared space of RFC 6598, and the unique local addresses of RFC 4193. */
const PRIVATE = new BlockList()
PRIVATE.addSubnet('10.0.0.0', 8, 'ipv4')
PRIVATE.addSubnet('172.16.0.0', 12, 'ipv4')
PRIVATE.addSubnet('192.168.0.0', 16, 'ipv4')
PRIVATE.addSubnet('100.64.0.0', 10, 'ipv4')
PRIVATE.addSubnet('fc00::', 7, 'ipv6')

/** Whether a normalized address belongs to a private network: no packet to it leaves for the Internet. */
export const isPrivate = (address: string): boolean => isListed(PRIVATE, address)

const LINK_LOCAL = new BlockList()
LINK_LOCAL.addSubnet('169.254.0.0', 16, 'ipv4')
LINK_LOCAL.addSubnet('fe80::', 10, 'ipv6')

/** Whether a normalized address has a meaning only on its own link: it is never a pod's. */
export const isLinkLocal = (address: string): boolean => isListed(LINK_LOCAL, address)

const isListed = (list: BlockList, address: string): boolean =>
  list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')

const HOST = /^(localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/i

/**
 * Whether the value of a `Host` header names loopback. A browser sends the name that it was given:
 * one that its owner points to loopback (DNS rebinding) is not among these.
 */
export function isLoopbackHost(host: string): boolean {
  const name = HOST.exec(host)?.[1]?.toLowerCase()
  if (name === undefined) return false
  if (name === 'localhost') return true
  const address = normalizeAddress(unbracketed(name))
  return address !== undefined && isLoopback(address)
}

const DEFAULT_PORTS = { 'ws:': 80, 'wss:': 443 } as const

/** Host and port of a `ws:` or `wss:` URL, as a socket takes them: an IPv6 host without its brackets. */
export const endpointOf = (url: URL): { readonly host: string; readonly port: number } => ({
  host: unbracketed(url.hostname),
  port:
    url.port === '' ? DEFAULT_PORTS[url.protocol === 'wss:' ? 'wss:' : 'ws:'] : Number(url.port),
})
