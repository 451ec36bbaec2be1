/** Shares a costly answer: one in flight at a time, and only so many a second. */

import type { Clock } from '../lib/clock.ts'
import { TokenBuckets } from '../lib/token-buckets.ts'

export type SharedAnswerOptions = {
  readonly clock: Clock
  readonly ratePerSecond: number
  /** How many more may follow each other at once. */
  readonly burst: number
}

/**
 * Who asks while an answer is being made gets that one; who asks beyond the rate gets the last
 * one, which is then at most `1 / ratePerSecond` seconds old, and as old as its making took.
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
