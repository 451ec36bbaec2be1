/** First surfaces: how many new nodes of one address a gateway is shown within a minute. */

import { LRUCache } from 'lru-cache'
import { boundedLru } from '../../lib/bounded-lru.ts'
import type { Clock } from '../../lib/clock.ts'

/**
 * A gateway counts each first surface that comes with a `connect`, accepted ones included. The
 * tenth of an address within 60 s locks out everybody behind that address for five minutes.
 */
const TAKEN_MAX = 9
/** Longer than the gateway's, since it counts a little later than we do. */
const WINDOW_MS = 65_000
const ADDRESSES_MAX = 10_000

export class FirstSurfaces {
  readonly #clock: Clock
  /** When the last ones of each address were taken; at most `TAKEN_MAX`. */
  readonly #taken = new LRUCache<string, readonly number[]>(boundedLru(ADDRESSES_MAX))

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Whether the gateway may be shown another new node of this address now. */
  take(address: string): boolean {
    const now = this.#clock.monotonic()
    const recent = (this.#taken.get(address) ?? []).filter((at) => at > now - WINDOW_MS)
    if (recent.length >= TAKEN_MAX) return false
    this.#taken.set(address, [...recent, now])
    return true
  }

  /** The gateway was shown nothing: the last one taken does not count. */
  giveBack(address: string): void {
    const taken = this.#taken.get(address)
    if (taken !== undefined) this.#taken.set(address, taken.slice(0, -1))
  }
}
