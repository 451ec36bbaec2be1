/** How often something happened within the last hour, in memory that does not grow. */

const SLOT_MS = 60_000
/** An hour, and the minute under way. */
const SLOTS = 61

/** Exact to the minute. Times are monotonic, in milliseconds. */
export class RollingCount {
  /** By minute: a ring. */
  readonly #slots = new Uint32Array(SLOTS)
  /** The minute counted last. */
  #minute = 0

  add(nowMs: number): void {
    const minute = this.#turnTo(nowMs)
    this.#slots[minute % SLOTS] = (this.#slots[minute % SLOTS] ?? 0) + 1
  }

  sum(nowMs: number): number {
    this.#turnTo(nowMs)
    return this.#slots.reduce((total, count) => total + count, 0)
  }

  /** The longest time, in milliseconds, since which all that is counted happened. */
  ageMaxMs(nowMs: number): number {
    const minute = this.#turnTo(nowMs)
    for (let ago = SLOTS - 1; ago > 0; ago -= 1) {
      if (this.#slots[(minute - ago + SLOTS) % SLOTS] !== 0) return nowMs - (minute - ago) * SLOT_MS
    }
    return nowMs - minute * SLOT_MS
  }

  /** Empties what an hour has passed over, and returns the minute under way. */
  #turnTo(nowMs: number): number {
    const minute = Math.floor(nowMs / SLOT_MS)
    if (minute - this.#minute >= SLOTS) this.#slots.fill(0)
    else for (let at = this.#minute + 1; at <= minute; at += 1) this.#slots[at % SLOTS] = 0
    this.#minute = minute
    return minute
  }
}
