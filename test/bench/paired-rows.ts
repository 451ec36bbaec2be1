/** Two sidecars of one run, row by row: how much more CPU time ours takes than the other. */

import { quantile, ratios, type Result } from './results.ts'

export type Row = {
  readonly table: string
  readonly case: string
  /** Our CPU time as a multiple of the other's: the median of the rounds, and their middle half. */
  readonly median: number
  readonly low: number
  readonly high: number
}

/** Above this a row fails. */
const RATIO_MAX = 1.5
/** What is nearer to 1 is noise. */
const RATIO_NOISE = 1.1

/** What both have measured in CPU time. */
export const compare = (results: readonly Result[]): readonly Row[] => {
  const measured = results.filter(({ unit }) => unit.startsWith('CPU'))
  return [...Map.groupBy(measured, (result) => `${result.table} ${result.case}`).values()].flatMap(
    (both) => {
      const ours = both.find(({ peer }) => peer === 'sidecar')
      const theirs = both.find(({ peer }) => peer !== 'sidecar')
      if (ours === undefined || theirs === undefined) return []
      const { table, case: name } = ours
      const all = ratios(ours.rounds, theirs.rounds)
      const [low, median, high] = [0.25, 0.5, 0.75].map((share) => quantile(all, share))
      return [{ table, case: name, low, median, high } as Row]
    },
  )
}

export const isTooHigh = ({ median }: Row): boolean => !(median <= RATIO_MAX)

/** Of each row the lower one; a row that was not measured again stays. */
export const keepLower = (rows: readonly Row[], again: readonly Row[]): readonly Row[] =>
  rows.map((row) => {
    const same = again.find((other) => other.table === row.table && other.case === row.case)
    return same !== undefined && same.median < row.median ? same : row
  })

/** Slower or faster is said only where three quarters of the rounds agree. */
export const rowText = (row: Row): string => {
  const { table, median, low, high } = row
  const verdict = isTooHigh(row)
    ? 'FAILED'
    : low > RATIO_NOISE
      ? 'slower'
      : high < 1 / RATIO_NOISE
        ? 'faster'
        : 'same  '
  const figures = `${median.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`
  return `${verdict}  ${figures}  ${table}: ${row.case}`
}
