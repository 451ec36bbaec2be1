/** The client's own books: what it has seen, by code. */

import type { Outcome } from '../../kit/soak.ts'

type Tally = Map<string, number>

/** What was counted by code, and how often. */
export type Counts = {
  admitted: number
  bytesUp: number
  bytesDown: number
  readonly refused: Tally
  readonly closed: Tally
  readonly problems: string[]
}

export const newCounts = (): Counts => ({
  admitted: 0,
  bytesUp: 0,
  bytesDown: 0,
  refused: new Map(),
  closed: new Map(),
  problems: [],
})

export const countOne = (tally: Tally, code: string): void =>
  void tally.set(code, (tally.get(code) ?? 0) + 1)

export const countOutcome = (
  counts: Counts,
  code: string,
  { bytesUp, bytesDown, problems }: Outcome,
): void => {
  countOne(counts.closed, code)
  counts.bytesUp += bytesUp
  counts.bytesDown += bytesDown
  counts.problems.push(...problems)
}

export const totalOf = (tally: ReadonlyMap<string, number>): number =>
  [...tally.values()].reduce((sum, each) => sum + each, 0)

/** The series of one name, summed by the code in their labels. */
export const byCode = (
  metrics: ReadonlyMap<string, number>,
  ...names: readonly string[]
): Tally => {
  const tally: Tally = new Map()
  for (const [series, value] of metrics) {
    const [, name = '', code = ''] = /^(\w+)\{(?:.*,)?code="(\w+)"/.exec(series) ?? []
    if (names.includes(name) && value > 0) tally.set(code, (tally.get(code) ?? 0) + value)
  }
  return tally
}

/** The codes under which two books differ, in words. */
export const findDifferences = (
  what: string,
  own: ReadonlyMap<string, number>,
  metrics: ReadonlyMap<string, number>,
): readonly string[] =>
  [...new Set([...own.keys(), ...metrics.keys()])]
    .filter((code) => (own.get(code) ?? 0) !== (metrics.get(code) ?? 0))
    .map((code) => {
      const [client, sidecar] = [own.get(code) ?? 0, metrics.get(code) ?? 0]
      return `${what} with ${code}: the client counted ${client}, the metrics ${sidecar}`
    })
