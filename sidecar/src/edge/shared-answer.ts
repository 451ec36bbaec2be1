/** Shares an expensive answer: one in flight at a time, at a limited rate. */

import type { Clock } from '../lib/clock.ts'
import { TokenBuckets } from '../lib/token-buckets.ts'

export type SharedAnswerOptions = {
  readonly clock: Clock
  readonly ratePerSecond: number
  /** How many may follow each other at once. */
  readonly burst: number
}

/**
 * A caller during the making of an answer gets that answer. A caller beyond the rate gets the last
 * one, which is at most `1 / ratePerSecond` seconds old plus the time it took to make.
 */
export function shareAnswer<T>(
  make: () => Promise<T>,
  { clock, ...rate }: SharedAnswerOptions,
): () => Promise<T> {
  const budget = new TokenBuckets({ ...rate, keysMax: 1, clock })
  let inFlight: Promise<T> | undefined
  let last: Promise<T> | undefined
  return () => {
    if (inFlight !== undefined) return inFlight
    if (last !== undefined && !budget.take('')) return last
    inFlight = make().finally(() => {
      inFlight = undefined
    })
    last = inFlight
    return inFlight
  }
}
