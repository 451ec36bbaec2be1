/** The section of a run in docs/reliability.md: what was tried, and how long each promise took to hold again. */

import { replaceMarked, table } from '../kit/result-page.ts'
import { KINDS } from './schedule.ts'
import type { Played } from './play.ts'

export type Run = {
  /** As `2026-11-28`. */
  readonly date: string
  /** Of the API server, as `v1.35.4`. */
  readonly version: string
  readonly firstSeed: number
  readonly played: readonly Played[]
}

export const rewritePage = (page: string, run: Run): string =>
  replaceMarked(page, 'chaos', render(run))

const render = ({ date, version, firstSeed, played }: Run): string => {
  const failed = played.filter(({ problems }) => problems.length > 0)
  const all = (pick: (one: Played) => number) => played.reduce((sum, one) => sum + pick(one), 0)
  const revoked = played.flatMap(({ revokedMs }) => revokedMs)
  const lines = [
    `${date}, Kubernetes ${version}, seeds ${firstSeed} to ${firstSeed + played.length - 1}: ` +
      `**${played.length - failed.length} of ${played.length} scenarios passed**.`,
    `${all(({ streams }) => streams)} streams were opened and ${all(({ echoes }) => echoes)} messages came back ` +
      `whole and in order; ${all(({ strangers }) => strangers)} callers without a right tried to get in, and none did. ` +
      `${revoked.length} streams of pods that were deleted while nothing disturbed the watch were closed within ` +
      `${secondsOf(Math.max(0, ...revoked))}.`,
    ...failed.map(({ seed, problems }) => `- seed ${seed}: ${problems[0]}`),
    table(
      ['fault', 'scenarios', 'passed', 'all in again, median', 'slowest'],
      KINDS.map((kind) => rowOf(kind, played)),
    ),
  ]
  return lines.join('\n\n')
}

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
