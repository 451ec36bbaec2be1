/** One round of inputs for one promise, and the words for an input that broke it. */

import { inspect } from 'node:util'
import * as fc from 'fast-check'
import type { TargetRig, Property } from './target.ts'

export type Round = {
  readonly seed: number
  /** Straight to one input of the round, as fast-check names it. */
  readonly path?: string | undefined
  /** Inputs, where the promise's own number will not do. */
  readonly runs?: number
  /** Whether the smallest input that breaks the promise is looked for. Default true. */
  readonly shrinks?: boolean
}

export type Failure = Pick<Round, 'seed' | 'path'> & {
  readonly promise: string
  readonly counterexample: string
  readonly reason: string
}

/** Shrinking stops here: a counterexample that is a little too long is better than none. */
const ROUND_MS_MAX = 40_000
const SHOWN_LENGTH_MAX = 4000

/** Plays one round; returns what broke the promise, with the smallest such input. */
export const playRound = async (
  { settle }: Pick<TargetRig, 'settle'>,
  { promise, property, ...own }: Property,
  { seed, path, runs = own.runs, shrinks = true }: Round,
): Promise<Failure | undefined> => {
  const details = await fc.check(property, {
    seed,
    numRuns: runs,
    endOnFailure: !shrinks,
    interruptAfterTimeLimit: ROUND_MS_MAX,
    markInterruptAsFailure: true,
    ...(path === undefined ? {} : { path }),
  })
  if (details.failed) {
    const { counterexample, counterexamplePath, errorInstance } = details
    const reason =
      errorInstance === null ? 'The round was not over in time.' : reasonOf(errorInstance)
    return {
      promise,
      seed: details.seed,
      path: counterexamplePath ?? undefined,
      counterexample: show(counterexample),
      reason,
    }
  }
  try {
    await settle?.()
    return undefined
  } catch (error) {
    const counterexample = 'the whole round; what it left behind was seen at its end'
    return { promise, seed, counterexample, reason: reasonOf(error) }
  }
}

export const reasonOf = (error: unknown): string =>
  error instanceof Error ? error.message : inspect(error)

/** The input on one line, with bytes in hexadecimal. */
const show = (input: unknown): string => {
  const text = JSON.stringify(input, (_key, value: unknown) => {
    const bytes = bytesOf(value)
    if (bytes !== undefined) return `hex:${bytes.toString('hex')}`
    return typeof value === 'bigint' ? `${value}n` : value
  })
  const whole = text ?? 'none'
  return whole.length > SHOWN_LENGTH_MAX ? `${whole.slice(0, SHOWN_LENGTH_MAX)}…` : whole
}

/** `toJSON` of a Buffer has run before a replacer sees it. */
const bytesOf = (value: unknown): Buffer | undefined => {
  if (value instanceof Uint8Array) return Buffer.from(value)
  if (typeof value !== 'object' || value === null) return undefined
  const { type, data } = value as { readonly type?: unknown; readonly data?: unknown }
  if (type !== 'Buffer' || !Array.isArray(data)) return undefined
  return Buffer.from(data as readonly number[])
}
