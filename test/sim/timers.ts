/** Puts the global timers on the simulated clock: undici and `ws` take theirs from there. */

import type { FakeClock } from '../kit/fake-clock.ts'

const { setTimeout: setRealTimeout, clearTimeout: clearRealTimeout } = globalThis

/** Of the world that is played. A library may refresh a timer that it armed in an earlier one. */
let current: FakeClock | undefined
const armed = new Set<SimTimer>()

/** What `setTimeout` returns, as far as libraries use it. */
class SimTimer {
  readonly #run: () => void
  readonly #ms: number
  #cancel = () => {}

  constructor(run: () => void, ms: number) {
    this.#run = run
    this.#ms = ms
    this.refresh()
  }

  refresh(): this {
    this.cancel()
    armed.add(this)
    this.#cancel =
      current?.after(this.#ms, () => {
        armed.delete(this)
        this.#run()
      }) ?? this.#cancel
    return this
  }

  cancel(): void {
    armed.delete(this)
    this.#cancel()
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }
}

/** How many timers of libraries wait. */
export const countLibraryTimers = (): number => armed.size

/** From now on until the returned function is called. */
export const simulateTimers = (clock: FakeClock): (() => void) => {
  current = clock
  armed.clear()
  const set = (run: (...args: unknown[]) => void, ms = 1, ...args: unknown[]) =>
    new SimTimer(() => run(...args), ms)
  const clear = (timer: unknown) => {
    if (timer instanceof SimTimer) timer.cancel()
    else clearRealTimeout(timer as NodeJS.Timeout)
  }
  Object.assign(globalThis, { setTimeout: set, clearTimeout: clear })
  return () => {
    current = undefined
    Object.assign(globalThis, { setTimeout: setRealTimeout, clearTimeout: clearRealTimeout })
  }
}
