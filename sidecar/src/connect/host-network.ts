/** Keeps `connect` off the ports of a host network, which every pod of that node can reach. */

import type { Problem } from '../config/config-error.ts'
import { findNetwork, HOST_ADDRESS, type Place } from '../lib/host-network.ts'
import type { Listen } from './connect-port.ts'

const PATH = '--listen'
const PROBLEMS = {
  unset: {
    path: PATH,
    reason: `${HOST_ADDRESS} is not set, so the host network cannot be ruled out.`,
    hint: `Set it in the pod: env: [{ name: ${HOST_ADDRESS}, valueFrom: { fieldRef: { fieldPath: status.hostIP } } }]`,
  },
  invalid: {
    path: HOST_ADDRESS,
    reason: 'This is not an IP address.',
    hint: 'Set it from status.hostIP.',
  },
  host: {
    path: PATH,
    reason: "On the host network every pod and process of the node could use this pod's identity.",
    hint: 'Listen on a Unix socket in a volume of the pod: --listen unix:/PATH.',
  },
} as const satisfies Record<string, Problem>

/** In a pod that does not know its node's address nobody can tell, and that is an error. */
export function findHostNetworkProblem(listen: Listen, place: Place): Problem | undefined {
  if (listen.kind === 'unix') return undefined
  const network = findNetwork(place)
  return network === 'own' ? undefined : PROBLEMS[network]
}
