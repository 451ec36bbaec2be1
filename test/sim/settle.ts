/** Waits until this process stands still: only the clock can make something happen then. */

import { setImmediate as turn } from 'node:timers/promises'

/** Work in Node's thread pool, which answers whenever it is done. */
let computing: Promise<unknown> = Promise.resolve()
let inProgress = 0

/** Of WebCrypto, the operations that the sidecar uses after its start. */
const COMPUTED = ['verify', 'sign', 'importKey', 'digest'] as const

/**
 * Lets one computation run at a time, in the order of the calls: two that run side by side would be
 * done in another order each time.
 */
export const serializeCrypto = (): void => {
  const { subtle } = globalThis.crypto
  for (const name of COMPUTED) {
    const compute = subtle[name].bind(subtle) as (...args: readonly unknown[]) => Promise<unknown>
    const inTurn = (...args: readonly unknown[]): Promise<unknown> => {
      inProgress += 1
      const done = computing.then(() => compute(...args))
      computing = done.catch(() => {}).finally(() => (inProgress -= 1))
      return done
    }
    Object.defineProperty(subtle, name, { value: inTurn, configurable: true })
  }
}

/** The world waits for this work as well. */
export const waitFor = (work: Promise<unknown>): void => {
  inProgress += 1
  const end = () => (inProgress -= 1)
  work.then(end, end)
}

/** Turns of the event loop in a row without anything happening. */
const QUIET_TURNS = 2
/** A world that never rests is an error of the simulation. */
const TURNS_MAX = 100_000

export const settle = async (readActivity: () => number): Promise<void> => {
  let quiet = 0
  let turns = 0
  for (let seen = readActivity(); quiet < QUIET_TURNS; turns += 1) {
    if (turns > TURNS_MAX) throw new Error('the world does not come to rest')
    await turn()
    const now = readActivity()
    quiet = now === seen && inProgress === 0 ? quiet + 1 : 0
    seen = now
  }
}
