/** The addresses of the pods that the watch shows. */

import type { WatchedPod } from './pod.ts'

export class PodAddresses {
  /** How many pods have an address: on the host network there are several, and a new pod may get one early. */
  readonly #podsOf = new Map<string, number>()

  /** Whether a pod has this address. One spelled otherwise than by the kernel is not found. */
  has(address: string): boolean {
    return this.#podsOf.has(address)
  }

  /** The pod `before` is now `after`; `undefined` where there is none. */
  replace(before: WatchedPod | undefined, after: WatchedPod | undefined): void {
    for (const ip of after?.ips ?? []) this.#podsOf.set(ip, (this.#podsOf.get(ip) ?? 0) + 1)
    for (const ip of before?.ips ?? []) {
      const left = (this.#podsOf.get(ip) ?? 1) - 1
      if (left === 0) this.#podsOf.delete(ip)
      else this.#podsOf.set(ip, left)
    }
  }
}
