/** How much the embedded API server can do: a rate, a time for each answer, and a queue that ends in 429. */

import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { failure } from './kube-status.ts'
import type { Answer } from './kube-status.ts'

export type PaceOptions = {
  readonly ratePerSecond: number
  /** From a request's turn to its answer, in milliseconds. */
  readonly serviceMs: number
  /** The longest wait for a turn, in milliseconds; a request that would wait longer gets a 429 at once. */
  readonly waitMsMax: number
}

/** One after another at the given rate, as priority and fairness lets a user's requests through. */
export class Pace {
  readonly #options: PaceOptions
  readonly #clock: Clock
  #nextTurn = -Infinity

  constructor(options: PaceOptions, clock: Clock) {
    this.#options = options
    this.#clock = clock
  }

  /** Resolves when the answer is due: true, or false at once for a request that is turned away. */
  async pass(): Promise<boolean> {
    const { ratePerSecond, serviceMs, waitMsMax } = this.#options
    const now = this.#clock.monotonic()
    const turn = Math.max(now, this.#nextTurn)
    if (turn - now > waitMsMax) return false
    this.#nextTurn = turn + 1000 / ratePerSecond
    await new Promise<void>((resolve) => this.#clock.after(turn - now + serviceMs, resolve))
    return true
  }
}

/** What the real one answers when its queues are full. */
export const tooManyRequests = (): Answer => {
  const answer = failure({
    code: 429,
    message: 'too many requests, please try again later',
    reason: 'TooManyRequests',
    details: { retryAfterSeconds: 1 },
  })
  return { ...answer, headers: { ...answer.headers, 'retry-after': '1' } }
}
