/** Whether this process is on the network of its node, where loopback is not a pod's own. */

import { normalizeAddress } from './address.ts'
import { listAddresses, type Interfaces } from './own-addresses.ts'

export type Place = {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly interfaces: Interfaces
}

/** The node's address, from the downward API: `status.hostIP`. */
export const HOST_ADDRESS = 'HOST_IP'
/** Kubernetes sets it in every container. */
const IN_A_POD = 'KUBERNETES_SERVICE_HOST'

/**
 * `own`: the process is on its pod's network, or not in a pod. `host`: it is on its node's.
 * `unset` and `invalid`: the environment does not tell, so the node's network cannot be ruled out.
 */
export type NetworkKind = 'own' | 'host' | 'unset' | 'invalid'

/**
 * On the host network the node's address is one of our own interfaces, and loopback is the node's:
 * other pods there, and processes of the node, reach it.
 */
export function findNetwork({ env, interfaces }: Place): NetworkKind {
  const given = env[HOST_ADDRESS]
  if (given === undefined || given === '') return env[IN_A_POD] === undefined ? 'own' : 'unset'
  const host = normalizeAddress(given)
  if (host === undefined) return 'invalid'
  return listAddresses(interfaces).includes(host) ? 'host' : 'own'
}
