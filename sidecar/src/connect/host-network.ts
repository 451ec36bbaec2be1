/** Keeps `connect` off the ports of a host network, which every pod of that node can reach. */

import type { NetworkInterfaceInfo } from 'node:os'
import type { Problem } from '../config/config-error.ts'
import { normalizeAddress } from '../lib/address.ts'
import type { Listen } from './connect-port.ts'

export type Place = {
  readonly env: Readonly<Record<string, string | undefined>>
  /** As of `os.networkInterfaces`. */
  readonly interfaces: Readonly<
    Record<string, readonly Pick<NetworkInterfaceInfo, 'address'>[] | undefined>
  >
}

/** The node's address, from the downward API: `status.hostIP`. */
const HOST_ADDRESS = 'HOST_IP'
/** Kubernetes sets it in every container. */
const IN_A_POD = 'KUBERNETES_SERVICE_HOST'

const SOCKET_HINT = 'Listen on a Unix socket in a volume of the pod: --listen unix:/PATH.'

/**
 * On the host network the node's address is one of our own interfaces, and loopback is the node's:
 * other pods there, and processes of the node, reach it. In a pod that does not know its node's
 * address nobody can tell, and that is an error.
 */
export function findHostNetworkProblem(
  listen: Listen,
  { env, interfaces }: Place,
): Problem | undefined {
  if (listen.kind === 'unix') return undefined
  const path = '--listen'
  const given = env[HOST_ADDRESS]
  if (given === undefined || given === '') {
    if (env[IN_A_POD] === undefined) return undefined
    const reason = `${HOST_ADDRESS} is not set, so the host network cannot be ruled out.`
    const hint = `Set it in the pod: env: [{ name: ${HOST_ADDRESS}, valueFrom: { fieldRef: { fieldPath: status.hostIP } } }]`
    return { path, reason, hint }
  }
  const host = normalizeAddress(given)
  if (host === undefined) {
    return {
      path: HOST_ADDRESS,
      reason: 'This is not an IP address.',
      hint: 'Set it from status.hostIP.',
    }
  }
  const own = Object.values(interfaces).flatMap((list) => list ?? [])
  if (!own.some(({ address }) => normalizeAddress(address) === host)) return undefined
  const reason =
    "On the host network every pod and process of the node could use this pod's identity."
  return { path, reason, hint: SOCKET_HINT }
}
