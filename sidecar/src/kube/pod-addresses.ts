/** The addresses of the pods that the watch shows. */

import { Tally } from '../lib/tally.ts'
import type { WatchedPod } from './pod.ts'

export class PodAddresses {
  /**
   * How many pods have an address: host-network pods share one, and a new pod can get one early.
   */
  readonly #podsAt = new Tally()

  /** Whether a pod has this address, which must be normalized. */
  has(address: string): boolean {
    return this.#podsAt.of(address) > 0
  }

  /** The pod `before` is now `after`; `undefined` if there is none. */
  replace(before: WatchedPod | undefined, after: WatchedPod | undefined): void {
    for (const ip of after?.ips ?? []) this.#podsAt.add(ip)
    for (const ip of before?.ips ?? []) this.#podsAt.remove(ip)
  }
}
