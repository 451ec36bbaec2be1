/** What a process that plays days tells the one that started it. */

import type { DayResult } from './day.ts'

export type Played = Omit<DayResult, 'trace'> & {
  readonly seed: number
  /** What the day cost its process, in seconds of CPU time. */
  readonly cpuS: number
}

/** To the process that plays: leave a schedule as it is. */
export const NO_SHRINK = '--no-shrink'
