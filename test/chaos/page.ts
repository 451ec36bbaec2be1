/** The section of a run in docs/reliability.md: what was tried, and how long each promise took to hold again. */

import { replaceMarked, table } from '../kit/result-page.ts'
import { LET_IN } from './answers.ts'
import { PRODUCT_KINDS } from './openclaw/schedule.ts'
import { KINDS } from './schedule.ts'
import type { Played } from './played.ts'

export type Run = {
  /** As `2026-11-28`. */
  readonly date: string
  /** Of the API server, as `v1.35.4`. */
  readonly version: string
  readonly firstSeed: number
  readonly played: readonly Played[]
}

export const rewritePage = (page: string, run: Run): string => {
  const { date, version, played } = run
  return replaceMarked(
    page,
    'chaos',
    [
      `${date}, Kubernetes ${version}, ${passedOf(run)}`,
      `${sumOf(played, ({ streams }) => streams)} streams were opened and ` +
        `${sumOf(played, ({ echoes }) => echoes)} messages came back whole and in order; ${strangersOf(played)} ` +
        revokedOf(played),
      ...failuresOf(played),
      tableOf(KINDS, played),
    ].join('\n\n'),
  )
}

/** The same with the real gateway; `version` is its own. */
export const rewriteProductPage = (page: string, run: Run): string => {
  const { date, version, played } = run
  return replaceMarked(
    page,
    'chaos with OpenClaw',
    [
      `${date}, OpenClaw ${version}, ${passedOf(run)}`,
      `${strangersOf(played)} ${revokedOf(played)}`,
      ...failuresOf(played),
      tableOf(PRODUCT_KINDS, played),
    ].join('\n\n'),
  )
}

const sumOf = (played: readonly Played[], pick: (one: Played) => number): number =>
  played.reduce((sum, one) => sum + pick(one), 0)

const passedOf = ({ firstSeed, played }: Run): string => {
  const passed = played.filter(({ problems }) => problems.length === 0).length
  return (
    `seeds ${firstSeed} to ${firstSeed + played.length - 1}: ` +
    `**${passed} of ${played.length} scenarios passed**.`
  )
}

const strangersOf = (played: readonly Played[]): string => {
  const letIn = played.some(({ problems }) => problems.some((each) => each.includes(LET_IN)))
  const tried = sumOf(played, ({ strangers }) => strangers)
  return `${tried} times a caller without a right tried to get in, ${letIn ? '**and not always in vain**' : 'and none did'}.`
}

const revokedOf = (played: readonly Played[]): string => {
  const revoked = played.flatMap(({ revokedMs }) => revokedMs)
  if (revoked.length === 0) return ''
  return (
    `${revoked.length} streams of pods that were deleted while nothing disturbed the watch were closed within ` +
    `${secondsOf(Math.max(...revoked))}.`
  )
}

const failuresOf = (played: readonly Played[]): readonly string[] =>
  played.flatMap(({ seed, problems: [first] }) =>
    first === undefined ? [] : [`- seed ${seed}: ${first.split('\n', 1)[0]}`],
  )

const tableOf = (kinds: readonly string[], played: readonly Played[]): string =>
  table(
    ['fault', 'scenarios', 'passed', 'all in again, median', 'slowest'],
    kinds.map((kind) => rowOf(kind, played)),
  )

const rowOf = (kind: string, played: readonly Played[]): readonly string[] => {
  const own = played.filter(({ kinds }) => kinds.includes(kind))
  const passed = own.filter(({ problems }) => problems.length === 0)
  const back = passed.map(({ backMs }) => backMs).toSorted((a, b) => a - b)
  const median = back[Math.floor(back.length / 2)]
  return [
    kind,
    String(own.length),
    String(passed.length),
    secondsOf(median),
    secondsOf(back.at(-1)),
  ]
}

const secondsOf = (ms: number | undefined): string =>
  ms === undefined ? '–' : `${(ms / 1000).toFixed(1)} s`
