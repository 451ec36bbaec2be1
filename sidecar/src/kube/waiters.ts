/** Waits for what a watch will show: by uid, and never without an end. */

import type { Clock } from '../lib/clock.ts'

export class Waiters {
  readonly #clock: Clock
  /** Bounded by the limit on pending admissions. */
  readonly #waiters = new Map<string, Set<() => void>>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Resolves once the object with this uid is as wanted, or after `ms` milliseconds. */
  async wait(uid: string, ms: number, isSettled: () => boolean): Promise<void> {
    if (isSettled()) return
    const { promise, resolve } = Promise.withResolvers<undefined>()
    const cancel = this.#clock.after(ms, () => resolve(undefined))
    const wake = () => {
      if (isSettled()) resolve(undefined)
    }
    const waiters = this.#waiters.get(uid) ?? new Set()
    this.#waiters.set(uid, waiters.add(wake))
    await promise
    cancel()
    waiters.delete(wake)
    if (waiters.size === 0) this.#waiters.delete(uid)
  }

  /** The object with this uid has changed. */
  wake(uid: string): void {
    for (const wake of this.#waiters.get(uid) ?? []) wake()
  }
}
