/** Logs when calls to the gateway's sidecar begin to fail, and when they work again. */

import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import type { Outcome } from './codes.ts'

/** At most one line in this time, in milliseconds: a process of the pod decides how often it calls. */
const QUIET_MS = 1000
/** Of a reason, in characters. */
const REASON_LENGTH_MAX = 512

export class CallLog {
  readonly #log: Log
  readonly #clock: Clock
  #shown: Outcome = { code: 'connected' }
  #current: Outcome = this.#shown
  #isQuiet = false

  constructor(log: Log, clock: Clock) {
    this.#log = log
    this.#clock = clock
  }

  /** A worker that tries every second gets one line, not one a second. */
  note(outcome: Outcome): void {
    this.#current = outcome
    if (!this.#isQuiet) this.#show()
  }

  #show(): void {
    const current = this.#current
    if (stateOf(current) === stateOf(this.#shown)) return
    this.#shown = current
    if (current.code === 'connected') this.#log.info('workers can connect again')
    else {
      const reason = current.reason.slice(0, REASON_LENGTH_MAX)
      this.#log.error({ ...current, reason }, 'workers cannot connect')
    }
    this.#isQuiet = true
    this.#clock.after(QUIET_MS, () => {
      this.#isQuiet = false
      this.#show()
    })
  }
}

/** A reason can differ from one attempt to the next, and tells nothing new. */
const stateOf = (outcome: Outcome): string =>
  outcome.code === 'refused' ? `${outcome.code} ${outcome.status}` : outcome.code
