/** Whether a soak has kept the promises: nothing grows, nothing is lost, and all books say the same. */

import { judgeBooks, judgeOutputs, judgeRest } from '../../kit/books.ts'
import type { Finding } from '../process-rig.ts'
import { byCode, findDifferences, totalOf, type Counts } from './counts.ts'
import { slopePerMinute, type Sample } from './slope.ts'

export type SoakRun = {
  readonly minutes: number
  readonly streams: number
  /** As `2026-11-28`. */
  readonly date: string
  readonly counts: Counts
  /** When everybody had left. */
  readonly metrics: ReadonlyMap<string, number>
  readonly audit: readonly string[]
  readonly log: readonly string[]
  /** How the sidecar ended: its exit code, or a signal. */
  readonly exit: string
  /** More than before the first worker. */
  readonly descriptorsLeft: number
  readonly pods: number
  /** How often the configuration file was changed. */
  readonly reloads: number
  readonly outages: number
  /** After the warm-up, in MiB. */
  readonly rss: readonly Sample[]
  /** After the warm-up, beyond two a stream. */
  readonly descriptors: readonly Sample[]
}

/**
 * A thousand admissions a minute that each left 1 KiB behind would make 1 MiB. Without a leak the samples scatter by
 * some MiB with the garbage, which over eight minutes is a slope of some tenths.
 */
const RSS_MIB_PER_MINUTE_MAX = 1
/** One admission in five hundred that left its socket behind. */
const DESCRIPTORS_PER_MINUTE_MAX = 2
/** A shorter run is all warm-up: its slopes are shown and not judged. */
const JUDGED_MINUTES_MIN = 5
/** Two changes within 200 ms of a busy machine are one reload. */
const RELOADED_SHARE_MIN = 0.9
const MIB = 1024 * 1024

export const judgeSoak = (run: SoakRun): readonly Finding[] => {
  const { counts, metrics, audit, log } = run
  const rss = slopePerMinute(run.rss)
  const descriptors = slopePerMinute(run.descriptors)
  const isLong = run.minutes >= JUDGED_MINUTES_MIN
  const tooShort = isLong
    ? ''
    : `; a run of less than ${JUDGED_MINUTES_MIN} minutes is not judged by it`
  const reloaded = metrics.get('config_reloads_total{outcome="ok"}') ?? 0
  const notReloaded = metrics.get('config_reloads_total{outcome="failed"}') ?? 0
  const dropped = metrics.get('log_lines_dropped_total{output="audit"}') ?? 0
  const refusedByCode = byCode(metrics, 'auth_failures_total', 'upgrades_refused_total')
  const differences = [
    ...findDifferences('refusals', counts.refused, refusedByCode),
    ...findDifferences('closes', counts.closed, byCode(metrics, 'stream_closes_total')),
    ...(counts.admitted === (metrics.get('auth_attempts_total{result="success"}') ?? 0)
      ? []
      : ['admissions differ']),
  ]
  const wrong = [
    ...judgeBooks(metrics, audit),
    ...judgeRest(metrics, run.descriptorsLeft),
    ...judgeOutputs({ log: () => log, audit: () => audit }, []),
  ]
  const mib = Math.round((counts.bytesUp + counts.bytesDown) / MIB)
  return [
    [
      'no byte is lost or changed',
      `${mib} MiB in ${totalOf(counts.closed)} streams, ${counts.problems.length} problems`,
      counts.problems.length === 0 && counts.admitted > 0,
    ],
    [
      `RSS grows by ${RSS_MIB_PER_MINUTE_MAX} MiB a minute at most`,
      `${rss.toFixed(2)} MiB a minute, ${rangeOf(run.rss, 1)} MiB${tooShort}`,
      !isLong || rss <= RSS_MIB_PER_MINUTE_MAX,
    ],
    [
      `descriptors beyond two a stream grow by ${DESCRIPTORS_PER_MINUTE_MAX} a minute at most`,
      `${descriptors.toFixed(2)} a minute, ${rangeOf(run.descriptors, 0)}${tooShort}`,
      !isLong || descriptors <= DESCRIPTORS_PER_MINUTE_MAX,
    ],
    [
      'the client counted what the metrics say, code by code',
      differences.length > 0
        ? differences.join('; ')
        : `${counts.admitted} admitted, ${totalOf(counts.refused)} refused, ${totalOf(counts.closed)} closed`,
      differences.length === 0,
    ],
    [
      'the audit and what it lost are what the metrics say, and nothing is left',
      wrong.length > 0 ? wrong.join('; ') : `${audit.length} lines, ${dropped} lost`,
      wrong.length === 0,
    ],
    [
      'the configuration is reloaded every second',
      `${reloaded} of ${run.reloads}, ${notReloaded} failed`,
      reloaded >= RELOADED_SHARE_MIN * run.reloads && notReloaded === 0,
    ],
    ['the process ends with 0 when it is told to', run.exit, run.exit === '0'],
  ]
}

const rangeOf = (samples: readonly Sample[], digits: number): string => {
  const all = samples.map(({ value }) => value)
  return `${Math.min(...all).toFixed(digits)} to ${Math.max(...all).toFixed(digits)}`
}
