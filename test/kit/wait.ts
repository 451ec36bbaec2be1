/** Waits for what no event announces: asks again until it is so, or until a limit is reached. */

import { AssertionError } from 'node:assert'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'

const TURNS_MAX = 20_000
const PAUSE_MS_MIN = 10
const PAUSE_MS_MAX = 200

/** Waits for this process. It never sleeps: between two questions lies one turn of real I/O. */
export const waitUntil = async (isSo: () => Promise<boolean> | boolean): Promise<void> => {
  for (let turns = 0; !(await isSo()); turns += 1) {
    if (turns > TURNS_MAX) throw new Error(`not so after ${TURNS_MAX} turns: ${isSo.toString()}`)
    await turn()
  }
}

/**
 * Waits for another process, within a limit of real time, and gives its first answer. False,
 * undefined and an error are not answers; when time is up, the last error is the cause of ours.
 * A failed assertion ends the wait at once: what was waited for can no longer happen.
 */
export const waitForProcess = async <T>(
  what: string,
  withinMs: number,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> => {
  const deadline = performance.now() + withinMs
  let last: unknown
  // At least once: what is waited for may have happened long ago.
  for (let pauseMs = PAUSE_MS_MIN; ; pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX)) {
    try {
      const answer = await ask()
      if (answer !== undefined && answer !== false) return answer
    } catch (error) {
      if (error instanceof AssertionError) throw error
      last = error
    }
    const leftMs = deadline - performance.now()
    if (leftMs <= 0) {
      const why = last instanceof Error ? `: ${last.message}` : ''
      throw new Error(`not within ${withinMs} ms: ${what}${why}`, { cause: last })
    }
    await sleep(Math.min(pauseMs, leftMs))
  }
}
