/** The key of every per-address limit: an IPv4 address, or the /64 of an IPv6 address. */

import { isIP } from 'node:net'

const V6_GROUPS = 8
/** A /64 is one network: a host in it can use any of its 2^64 addresses. */
const V6_PREFIX_GROUPS = 4

/** A v4-mapped address belongs to one host, like the IPv4 address it stands for. */
const V4_MAPPED = /^::ffff:/i

/**
 * As `addressGroup`, but a pod's address stands for itself. The cluster gave it to one worker, and
 * all pods of a node, or of a whole zone, can be in one /64. No pod must use up the limits of the
 * others.
 */
export const groupStrangers =
  (isOfPod: (address: string) => boolean) =>
  (address: string): string =>
    isOfPod(address) ? address : addressGroup(address)

/** Anything but an IPv6 address stands for itself, and so does a v4-mapped address. */
export function addressGroup(address: string): string {
  if (isIP(address) !== 6 || V4_MAPPED.test(address)) return address
  const [front = '', back] = address.split('::')
  const head = splitGroups(front)
  const zeros = back === undefined ? 0 : V6_GROUPS - head.length - countGroups(back)
  const groups = [...head, ...Array<string>(zeros).fill('0'), ...splitGroups(back ?? '')]
  const prefix = groups.slice(0, V6_PREFIX_GROUPS).map((group) => Number.parseInt(group, 16))
  while (prefix.at(-1) === 0) prefix.pop()
  return `${prefix.map((group) => group.toString(16)).join(':')}::/64`
}

const splitGroups = (part: string): readonly string[] => (part === '' ? [] : part.split(':'))

/** A dotted tail such as `::192.0.2.1` stands for two groups. */
const countGroups = (part: string): number =>
  splitGroups(part).length + (part.includes('.') ? 1 : 0)
