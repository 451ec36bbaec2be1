/** The address proof: which pod a source address stands for, where an address may prove one. */

import type { WatchedPod } from '../kube/pod.ts'
import type { BindingRules } from './pod-binding.ts'

export type AddressProofOptions = {
  /** The watched pods that have an address and have not ended. */
  readonly pods: { readonly listAt: (address: string) => readonly WatchedPod[] }
  readonly rules: () => BindingRules
}

/** Returns the pod that alone has this address; `undefined` where the address proves none. */
export type AddressProof = (address: string) => WatchedPod | undefined

/**
 * An address names a pod only while the network shows true addresses, which `enforce` stands for.
 * A node's address stands for all pods on the host network, allowed or not.
 */
export const createAddressProof =
  ({ pods, rules }: AddressProofOptions): AddressProof =>
  (address) => {
    if (rules().sourceAddress !== 'enforce') return undefined
    const [only, ...others] = pods.listAt(address)
    const isProven = only !== undefined && others.length === 0 && !only.isHostNetwork
    return isProven ? only : undefined
  }
