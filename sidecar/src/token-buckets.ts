/** Token buckets by key: a rate with a burst, in bounded memory. */

import { LRUCache } from 'lru-cache'
import { entriesMax } from './entries-max.ts'
import type { Clock } from './clock.ts'

type Bucket = { tokens: number; filledAt: number }

export type TokenBucketsOptions = {
  /** Tokens that come back per second; 0 switches the limit off. */
  readonly ratePerSecond: number
  /** The most a bucket can hold, and what a new one starts with. */
  readonly burst: number
  /** The most keys that are remembered; the least used one is forgotten. Default 10,000. */
  readonly keysMax?: number
  readonly clock: Clock
}

export class TokenBuckets {
  readonly #buckets: LRUCache<string, Bucket>
  readonly #options: TokenBucketsOptions

  constructor(options: TokenBucketsOptions) {
    this.#options = options
    this.#buckets = new LRUCache(entriesMax(options.keysMax ?? 10_000))
  }

  /** Whether a token is left, without taking it. */
  has(key: string): boolean {
    if (this.#options.ratePerSecond === 0) return true
    const bucket = this.#buckets.get(key)
    return bucket === undefined || this.#fill(bucket) >= 1
  }

  /** Takes a token; false when none is left. */
  take(key: string): boolean {
    if (this.#options.ratePerSecond === 0) return true
    let bucket = this.#buckets.get(key)
    if (bucket === undefined) {
      bucket = { tokens: this.#options.burst, filledAt: this.#options.clock.monotonic() }
      this.#buckets.set(key, bucket)
    }
    if (this.#fill(bucket) < 1) return false
    bucket.tokens -= 1
    return true
  }

  #fill(bucket: Bucket): number {
    const { ratePerSecond, burst, clock } = this.#options
    const now = clock.monotonic()
    bucket.tokens = Math.min(
      burst,
      bucket.tokens + ((now - bucket.filledAt) / 1000) * ratePerSecond,
    )
    bucket.filledAt = now
    return bucket.tokens
  }
}
