/** Waits until this process stands still: only the clock can make something happen then. */

import { KeyObject, verify as verifyBytes, type webcrypto } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'

/** Work in Node's thread pool, which answers whenever it is done. */
let computing: Promise<unknown> = Promise.resolve()
let inProgress = 0

/** Of WebCrypto, the operations that would be done in the thread pool. */
const COMPUTED = ['sign', 'importKey', 'digest'] as const

/**
 * Verifies signatures on this thread, and lets one other computation run at a time, in the order of
 * the calls: two that run side by side would be done in another order each time.
 */
export const serializeCrypto = (): void => {
  const { subtle } = globalThis.crypto
  const replace = (name: string, value: unknown) =>
    Object.defineProperty(subtle, name, { value, configurable: true })
  for (const name of COMPUTED) {
    const compute = subtle[name].bind(subtle) as (...args: readonly unknown[]) => Promise<unknown>
    replace(name, (...args: readonly unknown[]): Promise<unknown> => {
      const done = computing.then(() => compute(...args))
      waitFor(done)
      return done
    })
  }
  replace('verify', verifyEcdsa)
}

/** The one kind of signature that the simulated cluster has: ES256. */
const verifyEcdsa = async (
  _algorithm: unknown,
  key: webcrypto.CryptoKey,
  signature: Uint8Array,
  data: Uint8Array,
): Promise<boolean> =>
  verifyBytes('sha256', data, { key: KeyObject.from(key), dsaEncoding: 'ieee-p1363' }, signature)

/** The world waits for this work as well. */
export const waitFor = (work: Promise<unknown>): void => {
  inProgress += 1
  const end = () => void (inProgress -= 1)
  const over = work.then(end, end)
  computing = Promise.all([computing, over])
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
    // Asking again and again would take the time that the thread pool needs.
    if (inProgress > 0) await computing
    await turn()
    const now = readActivity()
    quiet = now === seen && inProgress === 0 ? quiet + 1 : 0
    seen = now
  }
}
