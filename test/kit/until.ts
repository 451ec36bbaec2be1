/** Waits for what no event tells, by asking again; every question is a turn of real I/O. */

import { setImmediate as turn } from 'node:timers/promises'

const TRIES_MAX = 20_000

export const until = async (isSo: () => Promise<boolean> | boolean): Promise<void> => {
  for (let tries = 0; !(await isSo()); tries += 1) {
    if (tries > TRIES_MAX) throw new Error('it never came to be')
    await turn()
  }
}
