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

/** Those that other machines can dial. */
export const listDialable = (interfaces: Interfaces): readonly string[] =>
  listAddresses(interfaces).filter((address) => !isLoopback(address) && !isLinkLocal(address))
