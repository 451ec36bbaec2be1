/** What a run has measured: one row of figures, round by round, for each peer and case. */

import type { SectionName } from './options.ts'

export type Result = {
  readonly section: SectionName
  /** What was measured, such as `echo, plain`: one table. */
  readonly table: string
  /** One row of the table, such as `1 KiB x 64`. */
  readonly case: string
  readonly unit: string
  readonly peer: string
  /** In the order they were taken; the nth values of all peers are of the same round. */
  readonly rounds: readonly number[]
}

/** What a peer was seen to do where a figure would not tell it: one cell of a table of words. */
export type Fact = {
  readonly table: string
  readonly case: string
  readonly peer: string
  readonly seen: string
}

/** Something that should have been measured and could not be. */
export type Problem = {
  readonly table: string
  readonly case: string
  readonly peer: string
  readonly reason: string
}

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((one, other) => one - other)
  const middle = sorted.length / 2
  return (
    ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2
  )
}

/** The value below which this share of all lies; for few values the next one above. */
export const quantile = (values: readonly number[], share: number): number => {
  const sorted = values.toSorted((one, other) => one - other)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** Round by round: what disturbs a round disturbs both of its figures. */
export const ratios = (ours: readonly number[], theirs: readonly number[]): readonly number[] =>
  ours.map((value, round) => value / (theirs[round] ?? Number.NaN))

/** The median of the rounds' own ratios. */
export const ratio = (ours: readonly number[], theirs: readonly number[]): number =>
  median(ratios(ours, theirs))
