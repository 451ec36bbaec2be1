/** Token buckets by key: a rate with a burst, in bounded memory. */

import { LRUCache } from 'lru-cache'
import { boundedLru } from './bounded-lru.ts'
import type { Clock } from './clock.ts'

type Bucket = { tokens: number; filledAt: number }

export type BucketLimit = {
  /** Tokens that come back per second; 0 switches the limit off. */
  readonly ratePerSecond: number
  /** The most a bucket can hold, and what a new one starts with. */
  readonly burst: number
}

export type TokenBucketsOptions = BucketLimit & {
  /**
   * The most keys that are remembered; the least recently used one is forgotten first. Default
   * 10,000. A caller with more keys than that can have a key forgotten, but has a full burst for
   * each of its keys anyway.
   */
  readonly keysMax?: number
  readonly clock: Clock
}

export class TokenBuckets {
  readonly #buckets: LRUCache<string, Bucket>
  readonly #options: TokenBucketsOptions

  constructor(options: TokenBucketsOptions) {
    this.#options = options
    this.#buckets = new LRUCache(boundedLru(options.keysMax ?? 10_000))
  }

  /** Whether a token is left. Does not take it. */
  has(key: string): boolean {
    if (this.#options.ratePerSecond === 0) return true
    const bucket = this.#buckets.get(key)
    return bucket === undefined || this.#fill(bucket) >= 1
  }

  /** Takes a token; false when none is left. */
  take(key: string): boolean {
    if (this.#options.ratePerSecond === 0) return true
    const bucket = this.#open(key)
    if (this.#fill(bucket) < 1) return false
    bucket.tokens -= 1
    return true
  }

  /**
   * Takes a token even when none is left, down to a debt of one burst. Attempts that began at the
   * same time then cost as much as attempts one after another.
   */
  charge(key: string): void {
    if (this.#options.ratePerSecond === 0) return
    const bucket = this.#open(key)
    bucket.tokens = Math.max(this.#fill(bucket) - 1, -this.#options.burst)
  }

  #open(key: string): Bucket {
    const known = this.#buckets.get(key)
    if (known !== undefined) return known
    const { burst, clock } = this.#options
    const bucket = { tokens: burst, filledAt: clock.monotonic() }
    this.#buckets.set(key, bucket)
    return bucket
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
