/** The circuit breaker: after several failures in a row it sends an API server nothing for a moment. */

import type { Clock } from '../lib/clock.ts'

export type BreakerOptions = {
  readonly clock: Clock
  /** Consecutive failures that open it. */
  readonly failuresMax: number
  /** How long it stays open, in milliseconds, before one request can try again. */
  readonly openMs: number
  /** Whether an error is a failure of the API server; any other error is one of its answers. */
  readonly isFailure: (error: unknown) => boolean
}

/** Uses monotonic time: a step of the wall clock must not hold the breaker open. */
export class Breaker {
  readonly #options: BreakerOptions
  #failures = 0
  #opensAt = -Infinity
  #isProbing = false

  constructor(options: BreakerOptions) {
    this.#options = options
  }

  /**
   * Runs `work`, or throws at once while the breaker is open. A failure counts only if `isTelling`.
   */
  async run<T>(work: () => Promise<T>, isTelling = true): Promise<T> {
    const isProbe = this.#failures >= this.#options.failuresMax
    if (isProbe) {
      if (this.#isProbing || this.#options.clock.monotonic() < this.#opensAt) {
        throw new Error('circuit open after repeated failures')
      }
      this.#isProbing = true
    }
    try {
      const result = await work()
      this.#failures = 0
      return result
    } catch (error) {
      if (isTelling || isProbe) this.#judge(error)
      throw error
    } finally {
      if (isProbe) this.#isProbing = false
    }
  }

  #judge(error: unknown): void {
    const { clock, failuresMax, openMs, isFailure } = this.#options
    if (!isFailure(error)) {
      this.#failures = 0
      return
    }
    this.#failures += 1
    if (this.#failures >= failuresMax) this.#opensAt = clock.monotonic() + openMs
  }
}
