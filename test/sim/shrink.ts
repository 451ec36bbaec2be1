/** Makes a schedule that breaks a promise shorter, as long as it breaks one. */

import type { Schedule } from './schedule.ts'

export type Shrunk<T> = { readonly schedule: Schedule; readonly found: T }

/** Each try plays a day. */
const TRIES_MAX = 80

/**
 * Cuts pieces out of the list, halves first, then smaller ones (Zeller's `ddmin`). `undefined` where
 * nothing could be left out.
 */
export const shrink = async <T>(
  schedule: Schedule,
  tryOut: (schedule: Schedule) => Promise<T | undefined>,
): Promise<Shrunk<T> | undefined> => {
  let best: Shrunk<T> | undefined
  let current = schedule
  let tries = 0
  const attempt = async (shorter: Schedule): Promise<boolean> => {
    if (tries >= TRIES_MAX) return false
    tries += 1
    const found = await tryOut(shorter)
    if (found === undefined) return false
    best = { schedule: shorter, found }
    current = shorter
    return true
  }
  for (let size = Math.ceil(current.events.length / 2); size > 0; size = Math.floor(size / 2)) {
    for (let from = 0; from < current.events.length;) {
      const { events } = current
      const isCut = await attempt({
        ...current,
        events: [...events.slice(0, from), ...events.slice(from + size)],
      })
      if (!isCut) from += size
    }
  }
  while (current.pods > 1) {
    if (!(await attempt({ ...current, pods: current.pods >> 1 }))) break
  }
  return best
}
