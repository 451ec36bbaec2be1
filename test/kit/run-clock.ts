/** Lets a fake clock run until something has happened, with time for real I/O in between. */

import type { FakeClock } from './fake-clock.ts'

const TURNS_A_STEP = 20
const STEPS_MAX = 5000

/** Time passes only while nothing else happens for a few turns. Settles as `work` does. */
export const runUntil = async <T>(clock: FakeClock, work: Promise<T>, stepMs = 50): Promise<T> => {
  const state = { isOver: false }
  const end = () => void (state.isOver = true)
  work.then(end, end)
  for (let step = 0; step < STEPS_MAX && !state.isOver; step += 1) {
    for (let n = 0; n < TURNS_A_STEP; n += 1) await clock.advanceAsync(0)
    if (!state.isOver) await clock.advanceAsync(stepMs)
  }
  return work
}
