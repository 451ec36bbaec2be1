/** How a storm is reported: Markdown tables, and promises next to observations. */

import type { Finding } from '../process-rig.ts'
import type { Echoes, Measured, Storm } from './measure.ts'

const LOOP_DELAY_P99_MS_MAX = 100
const RSS_MIB_MAX = 400

export const stormTable = (storms: readonly Storm[]): string =>
  table([
    [
      'storm',
      'through',
      'p50 / p99 / all',
      'TokenReviews',
      'pod GETs',
      'peak RSS',
      'loop delay p99 / max',
      'CPU',
      'sent away',
      'others’ CPU',
    ],
    ...storms.map((storm) => [
      storm.name,
      `${storm.through} of ${storm.workers}`,
      [storm.throughP50Ms, storm.throughP99Ms, storm.throughLastMs].map(seconds).join(' / '),
      String(storm.tokenReviews),
      String(storm.podGets),
      `${storm.rssPeakMib.toFixed(0)} MiB`,
      `${storm.loopDelayP99Ms.toFixed(0)} / ${storm.loopDelayMaxMs.toFixed(0)} ms`,
      `${storm.cpuSeconds.toFixed(1)} s`,
      tally(storm.refusals),
      percent(storm.othersShare),
    ]),
  ])

export const garbageTable = (
  parts: readonly (Measured & { readonly result: Echoes; readonly rate?: number })[],
): string =>
  table([
    [
      '',
      'round trip p50 / p99 / max',
      'messages',
      'refused',
      'TokenReviews',
      'CPU',
      'peak RSS',
      'loop delay p99 / max',
      'others’ CPU',
    ],
    ...parts.map((part) => [
      part.name,
      [part.result.p50Ms, part.result.p99Ms, part.result.maxMs]
        .map((ms) => `${ms.toFixed(1)} ms`)
        .join(' / '),
      String(part.result.messages),
      part.rate === undefined ? '–' : `${part.rate.toFixed(0)}/s`,
      String(part.tokenReviews),
      `${part.cpuSeconds.toFixed(1)} s of ${part.seconds.toFixed(0)} s`,
      `${part.rssPeakMib.toFixed(0)} MiB`,
      `${part.loopDelayP99Ms.toFixed(0)} / ${part.loopDelayMaxMs.toFixed(0)} ms`,
      percent(part.othersShare),
    ]),
  ])

/** `reviews` is the required number of reviews. */
export const judgeStorm = (storm: Storm, reviews: number): readonly Finding[] => {
  const { name, workers, through, throughLastMs, tokenReviews } = storm
  return [
    [
      `${name}: every worker through`,
      `${through} of ${workers}, the last after ${seconds(throughLastMs)}`,
      through === workers,
    ],
    [
      `${name}: a TokenReview for each token that is not known, and no more`,
      `${tokenReviews} of ${reviews}`,
      tokenReviews === reviews,
    ],
    ...judgeProcess(storm),
  ]
}

export const judgeProcess = (measured: Measured): readonly Finding[] => {
  const { name, loopDelayP99Ms, rssPeakMib, uncaughtPeerErrors } = measured
  return [
    [
      `${name}: event-loop delay p99 at most ${LOOP_DELAY_P99_MS_MAX} ms`,
      `${loopDelayP99Ms.toFixed(0)} ms`,
      loopDelayP99Ms <= LOOP_DELAY_P99_MS_MAX,
    ],
    [
      `${name}: peak RSS at most ${RSS_MIB_MAX} MiB`,
      `${rssPeakMib.toFixed(0)} MiB`,
      rssPeakMib <= RSS_MIB_MAX,
    ],
    [
      `${name}: every error of a socket was listened for`,
      `${uncaughtPeerErrors} uncaught`,
      uncaughtPeerErrors === 0,
    ],
  ]
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
const percent = (share: number): string => `${(share * 100).toFixed(0)} %`

const tally = (counts: Readonly<Record<string, number>>): string => {
  const entries = Object.entries(counts)
  return entries.length === 0 ? 'nobody' : entries.map(([code, n]) => `${n} ${code}`).join(', ')
}

const table = ([head = [], ...rows]: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |\n`).join('')
