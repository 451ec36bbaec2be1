/** Detects a side of a stream that has died silently. */

import type { Direction } from './direction.ts'
import { pingFrame } from '../websocket/frames.ts'

/** Consecutive periods in which a side may leave a ping unanswered. */
const UNANSWERED_MAX = 2

export class Heartbeat {
  readonly #from: Direction
  readonly #toward: Direction
  readonly #masked: boolean
  #received = 0
  #relayed = 0
  #unanswered = 0

  /**
   * Watches the side that sends `from` and receives `toward`; `masked` applies to the pings it
   * gets.
   */
  constructor(from: Direction, toward: Direction, masked: boolean) {
    this.#from = from
    this.#toward = toward
    this.#masked = masked
  }

  /** Judges the period since the last call, pings a silent side, and returns whether it is dead. */
  beat(): boolean {
    const [from, toward] = [this.#from, this.#toward]
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
    // If no ping fits (mid-frame, or a full buffer), a side that receives nothing either counts as
    // pinged: otherwise a stream stalled inside a frame would be kept forever.
    if (toward.inject(pingFrame({ masked: this.#masked })) || !isFed) this.#unanswered += 1
    return false
  }
}
