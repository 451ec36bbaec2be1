/** Finds out which side of a stream has died without saying so. */

import type { Direction } from './direction.ts'

export type HeartbeatOptions = {
  /** What the side sends. */
  readonly from: Direction
  /** What is relayed to it. */
  readonly toward: Direction
  readonly buildPing: () => Buffer
}

/** Periods in a row a side may leave a ping unanswered. */
const UNANSWERED_MAX = 2

export class Heartbeat {
  readonly #options: HeartbeatOptions
  #received = 0
  #relayed = 0
  #unanswered = 0

  constructor(options: HeartbeatOptions) {
    this.#options = options
  }

  /** Judges the period since the last call, pings a silent side, and tells whether it is dead. */
  beat(): boolean {
    const { from, toward, buildPing } = this.#options
    const isHeard = from.received !== this.#received
    const isFed = toward.scanner.bytes !== this.#relayed
    this.#received = from.received
    this.#relayed = toward.scanner.bytes
    // A side we do not read, because the other is slow, cannot be blamed for its silence.
    if (isHeard || from.isPaused) {
      this.#unanswered = 0
      return false
    }
    if (this.#unanswered >= UNANSWERED_MAX) return true
    // Where no ping fits (mid-frame, or a full buffer) a side that takes nothing either counts as
    // pinged: otherwise a stream stalled inside a frame would be kept for ever.
    if (toward.inject(buildPing()) || !isFed) this.#unanswered += 1
    return false
  }
}
