/** An outage: told once when it begins, and once when it is over, however often it fails meanwhile. */

import type { Clock } from './clock.ts'

export type OutageOptions = {
  readonly clock: Clock
  /**
   * How long it has to go well before the outage is over, in milliseconds: what flaps is still out.
   * Default 5000.
   */
  readonly quietMs?: number
  readonly onBegin: (error: unknown) => void
  /** Called with the outage's length in milliseconds. */
  readonly onEnd: (lengthMs: number) => void
}

const QUIET_MS = 5000

export class Outage {
  readonly #options: OutageOptions
  #since: number | undefined
  #cancelEnd: (() => void) | undefined
  #lastError: unknown

  constructor(options: OutageOptions) {
    this.#options = options
  }

  /** The newest failure, which tells more of a long outage than the first. */
  get lastError(): unknown {
    return this.#lastError
  }

  failed(error: unknown): void {
    this.#lastError = error
    this.#cancelEnd?.()
    this.#cancelEnd = undefined
    if (this.#since !== undefined) return
    this.#since = this.#options.clock.monotonic()
    this.#options.onBegin(error)
  }

  /** It works again. */
  worked(): void {
    const { clock, quietMs = QUIET_MS, onEnd } = this.#options
    const since = this.#since
    if (since === undefined || this.#cancelEnd !== undefined) return
    const lengthMs = Math.round(clock.monotonic() - since)
    this.#cancelEnd = clock.after(quietMs, () => {
      this.stop()
      onEnd(lengthMs)
    })
  }

  /** Nobody is interested any more. */
  stop(): void {
    this.#cancelEnd?.()
    this.#cancelEnd = undefined
    this.#since = undefined
  }
}
