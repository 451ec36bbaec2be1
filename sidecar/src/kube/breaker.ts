/** The circuit breaker: gives an API server that failed several times in a row a short rest. */

import type { Clock } from '../lib/clock.ts'

export type BreakerOptions = {
  readonly clock: Clock
  /** Consecutive failures that open it. */
  readonly failuresMax: number
  /** How long it then refuses requests, in milliseconds, before it lets one try again. */
  readonly openMs: number
  /** Whether an error means that the API server failed: any other error is an answer from it. */
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
        throw new Error('it failed repeatedly and is given a moment')
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
