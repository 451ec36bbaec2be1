/** The addresses of this machine, which in a pod are the pod's. */

import type { NetworkInterfaceInfo } from 'node:os'
import { isLinkLocal, isLoopback, normalizeAddress } from './address.ts'

/** As of `os.networkInterfaces`. */
export type Interfaces = Readonly<
  Record<string, readonly Pick<NetworkInterfaceInfo, 'address'>[] | undefined>
>

/** All of them, normalized. */
export const listAddresses = (interfaces: Interfaces): readonly string[] => {
  const all = Object.values(interfaces).flatMap((list) => list ?? [])
  return [...new Set(all.flatMap(({ address }) => normalizeAddress(address) ?? []))]
}

/** A node that is on the host network can have thousands, of its Services. */
const DIALABLE_MAX = 8

/** Those that other machines can dial, the first 8. */
export const listDialable = (interfaces: Interfaces): readonly string[] =>
  listAddresses(interfaces)
    .filter((address) => !isLoopback(address) && !isLinkLocal(address))
    .slice(0, DIALABLE_MAX)
