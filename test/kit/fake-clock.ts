/** A clock that stands still until a test moves it. */

import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'

type Timer = { readonly due: number; readonly order: number; readonly run: () => void }

/** A timer that re-arms itself without delay would otherwise never let `advance` return. */
const RUNS_MAX = 100_000

const DEFAULT_START_MS = Date.UTC(2026, 10, 23, 12, 0, 0)

export class FakeClock implements Clock {
  #wall: number
  #steady = 0
  #order = 0
  readonly #timers = new Set<Timer>()

  constructor(startMs: number = DEFAULT_START_MS) {
    this.#wall = startMs
  }

  /** Whole milliseconds, as of `Date.now`. */
  readonly now = (): number => Math.floor(this.#wall)

  readonly monotonic = (): number => this.#steady

  readonly after = (ms: number, run: () => void): (() => void) => {
    const timer: Timer = { due: this.#steady + Math.max(0, ms), order: this.#order++, run }
    this.#timers.add(timer)
    return () => void this.#timers.delete(timer)
  }

  /** How many timers wait: a test can assert that none was left behind. */
  get pending(): number {
    return this.#timers.size
  }

  /** Milliseconds until the next timer falls due; `undefined` without any. */
  get nextInMs(): number | undefined {
    const next = this.#next(Infinity, 0)
    return next === undefined ? undefined : Math.max(0, next.due - this.#steady)
  }

  /** Moves the clock and runs what falls due on the way, in order of time, then of arming. */
  advance(ms: number): void {
    const end = this.#steady + ms
    let runs = 0
    for (let timer = this.#next(end, 0); timer !== undefined; timer = this.#next(end, runs)) {
      this.#fire(timer)
      runs += 1
    }
    this.#moveTo(end)
  }

  /** Like `advance`, and lets every promise settle and all ready I/O run between two timers. */
  async advanceAsync(ms: number): Promise<void> {
    const end = this.#steady + ms
    await turn()
    let runs = 0
    for (let timer = this.#next(end, 0); timer !== undefined; timer = this.#next(end, runs)) {
      this.#fire(timer)
      runs += 1
      await turn()
    }
    this.#moveTo(end)
    await turn()
  }

  /** Steps wall time alone, as an operator or NTP would; no timer falls due. */
  stepWall(ms: number): void {
    this.#wall += ms
  }

  #next(end: number, runs: number): Timer | undefined {
    if (runs >= RUNS_MAX) throw new Error(`more than ${RUNS_MAX} timers fell due at once`)
    let first: Timer | undefined
    for (const timer of this.#timers) {
      if (timer.due > end) continue
      if (
        first === undefined ||
        timer.due < first.due ||
        (timer.due === first.due && timer.order < first.order)
      ) {
        first = timer
      }
    }
    return first
  }

  #fire(timer: Timer): void {
    this.#timers.delete(timer)
    this.#moveTo(timer.due)
    timer.run()
  }

  #moveTo(steady: number): void {
    // A timer may itself have advanced the clock; time never runs backwards.
    const step = Math.max(0, steady - this.#steady)
    this.#steady += step
    this.#wall += step
  }
}
