/** What a fuzz target is: promises that must hold for every input, and the rig they are tried on. */

import * as fc from 'fast-check'

export type Property = {
  /** What must hold for every input, as a sentence. */
  readonly promise: string
  readonly property: fc.IRawProperty<unknown>
  /** Inputs of one round. */
  readonly runs: number
}

export type TargetRig = {
  readonly properties: readonly Property[]
  /** Runs after each round; throws unless everything is as it was before. */
  readonly settle?: () => Promise<void>
  readonly close: () => Promise<void>
}

export type Target = {
  readonly name: string
  /** `asProcess` starts the sidecar's bundle where the target has a use for it. */
  readonly open: (options: { readonly asProcess: boolean }) => Promise<TargetRig>
}

type Parts = { readonly promise: string; readonly runs: number }

/** A promise about an input; `check` throws where it is broken. */
export const promiseOf = <T>(
  { promise, runs }: Parts,
  input: fc.Arbitrary<T>,
  check: (input: T) => void | Promise<void>,
): Property => ({
  promise,
  runs,
  property: fc.asyncProperty(input, async (value) => check(value)),
})

/** A target without sockets or processes. */
export const pureTarget = (name: string, properties: readonly Property[]): Target => ({
  name,
  open: async () => ({ properties, close: async () => {} }),
})
