/** Exponential back-off with jitter: how long to wait before the next try. */

export type BackoffOptions = {
  /** The longest first wait and the longest of all, in milliseconds. */
  readonly minMs: number
  readonly maxMs: number
  /** From 0 to 1. */
  readonly random: () => number
}

export class Backoff {
  readonly #options: BackoffOptions
  #failures = 0

  constructor(options: BackoffOptions) {
    this.#options = options
  }

  /** Milliseconds to wait after one more failure: from half of the ceiling, which doubles, up to it. */
  next(): number {
    const { minMs, maxMs, random } = this.#options
    const ceilingMs = Math.min(maxMs, minMs * 2 ** this.#failures)
    this.#failures += 1
    return ceilingMs * (0.5 + random() / 2)
  }

  /** A success: the next failure waits as the first one did. */
  reset(): void {
    this.#failures = 0
  }
}
