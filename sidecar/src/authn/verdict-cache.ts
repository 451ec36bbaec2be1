/** The verdict cache: one TokenReview per token, remembered for as long as it can be trusted. */

import { createHmac, randomBytes } from 'node:crypto'
import type { LRUCache } from 'lru-cache'
import { ttlCache } from '../lib/bounded-lru.ts'
import type { Clock } from '../lib/clock.ts'
import type { Denied, Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import type { Account, Claims, Identity } from '../identity.ts'

export type CacheOutcome = 'hit' | 'miss' | 'negative' | 'shared'

export type VerdictCacheOptions = {
  readonly audiences: readonly string[]
  /** How long a good verdict on this pod may be trusted at the moment, in milliseconds. */
  readonly ttlMs: (account: Account) => number
  /** How long a bad verdict is remembered, in milliseconds; at most 2 s. */
  readonly negativeTtlMs: number
  /** The most good verdicts that are kept, and the most bad ones. */
  readonly entriesMax: number
  readonly review: (token: string, claims: Claims) => Promise<Verdict<Identity>>
  readonly clock: Clock
  readonly onOutcome: (outcome: CacheOutcome) => void
}

/** The longest a verdict is trusted without a current pod watch, in milliseconds. */
const TTL_WITHOUT_WATCH_MS = 10_000
/**
 * The API server ends each watch after a while; the next one follows within this, in milliseconds.
 */
const RECONNECT_MS_MAX = 2000

/** How long a good verdict may be trusted when the watch has been down for `watchStaleMs`. */
export const verdictTtl = (cacheTtlMs: number, watchStaleMs: number): number =>
  watchStaleMs <= RECONNECT_MS_MAX ? cacheTtlMs : Math.min(cacheTtlMs, TTL_WITHOUT_WATCH_MS)

type Good = Extract<Verdict<Identity>, { ok: true }>
type Kept = { readonly verdict: Good; readonly keptAt: number }
type Flight = {
  readonly promise: Promise<Verdict<Identity>>
  readonly podUid: string
  discarded: boolean
}

/**
 * Good and bad verdicts are kept apart, so that a flood of bad tokens evicts no good one. A review
 * does not belong to its first caller: that caller may leave, and the others still get the answer.
 * Faults are never cached. Keys are an HMAC under a key of this process: no token is stored.
 */
export class VerdictCache {
  readonly #options: VerdictCacheOptions
  readonly #key = randomBytes(32)
  readonly #audiences: string
  readonly #good: LRUCache<string, Kept>
  readonly #bad: LRUCache<string, Denied>
  readonly #flights = new Map<string, Flight>()
  readonly #keysOfPod = new Map<string, Set<string>>()

  constructor(options: VerdictCacheOptions) {
    this.#options = options
    this.#audiences = JSON.stringify(options.audiences)
    const { clock, entriesMax } = options
    this.#good = ttlCache({
      entriesMax,
      clock,
      onEvicted: ({ verdict }, key) => this.#unindex(verdict.value.podUid, key),
    })
    this.#bad = ttlCache({ entriesMax, clock })
  }

  /** Good verdicts in the cache. Those whose time is over are forgotten by the way. */
  get size(): number {
    // Otherwise only a full cache, or the same token, would make them leave.
    this.#good.purgeStale()
    return this.#good.size
  }

  /**
   * The verdict on a token whose claims were read. A cached one is not a promise; otherwise the
   * cluster is asked. Throws a `Fault`.
   */
  find(token: string, claims: Claims): Promise<Verdict<Identity>> | Verdict<Identity> {
    const key = this.#keyOf(token)
    const good = this.#good.get(key)
    if (good !== undefined && this.#isFresh(good, claims)) return this.#count('hit', good.verdict)
    const bad = this.#bad.get(key)
    if (bad !== undefined) return this.#count('negative', bad)
    const flight = this.#flights.get(key)
    if (flight !== undefined) return this.#count('shared', flight.promise)
    return this.#count('miss', this.#start(key, token, claims))
  }

  /** Forgets the verdicts on a pod's tokens and discards reviews in flight. */
  invalidatePod(podUid: string): void {
    for (const key of this.#keysOfPod.get(podUid) ?? []) this.#good.delete(key)
    for (const [key, flight] of this.#flights) {
      if (flight.podUid !== podUid) continue
      flight.discarded = true
      this.#flights.delete(key)
    }
  }

  #start(key: string, token: string, claims: Claims): Promise<Verdict<Identity>> {
    const run = async (): Promise<Verdict<Identity>> => {
      try {
        const verdict = await this.#options.review(token, claims)
        if (flight.discarded)
          throw new Fault('pod_unconfirmed', 'The pod changed during the TokenReview.')
        this.#keep(key, verdict)
        return verdict
      } finally {
        if (this.#flights.get(key) === flight) this.#flights.delete(key)
      }
    }
    const flight: Flight = {
      // Starts after `flight` is assigned; the review's concurrency and queue bound the map.
      promise: Promise.resolve().then(run),
      podUid: claims.podUid,
      discarded: false,
    }
    this.#flights.set(key, flight)
    return flight.promise
  }

  #keep(key: string, verdict: Verdict<Identity>): void {
    if (!verdict.ok) {
      if (this.#options.negativeTtlMs > 0) {
        this.#bad.set(key, verdict, { ttl: this.#options.negativeTtlMs })
      }
      return
    }
    const lifeMs = verdict.value.expiresAt * 1000 - this.#options.clock.now()
    const ttl = Math.min(this.#options.ttlMs(verdict.value), lifeMs)
    if (ttl <= 0) return
    this.#good.set(key, { verdict, keptAt: this.#options.clock.monotonic() }, { ttl })
    const { podUid } = verdict.value
    const keys = this.#keysOfPod.get(podUid)
    if (keys === undefined) this.#keysOfPod.set(podUid, new Set([key]))
    else keys.add(key)
  }

  /**
   * The allowed age may have shrunk since the verdict was cached, because the watch is not current.
   */
  #isFresh({ keptAt }: Kept, claims: Claims): boolean {
    return this.#options.clock.monotonic() - keptAt < this.#options.ttlMs(claims)
  }

  #unindex(podUid: string, key: string): void {
    const keys = this.#keysOfPod.get(podUid)
    if (keys === undefined) return
    keys.delete(key)
    if (keys.size === 0) this.#keysOfPod.delete(podUid)
  }

  #keyOf(token: string): string {
    return createHmac('sha256', this.#key).update(this.#audiences).update(token).digest('base64')
  }

  #count<T>(outcome: CacheOutcome, result: T): T {
    this.#options.onOutcome(outcome)
    return result
  }
}
