/** What is measured in a storm: the sidecar's metrics before and after, its memory, and the API server's requests. */

import { readMachine, shareOfOthers } from './machine.ts'
import type { LoadAnswer, Through } from './load.ts'
import type { StormRig } from './rig.ts'

type Tally = Readonly<Record<string, number>>

export type Measured = {
  readonly name: string
  readonly seconds: number
  /** Of the sidecar's process. */
  readonly cpuSeconds: number
  readonly rssPeakMib: number
  /** As `nodejs_eventloop_lag_*` reports them; at rest they are at the sampler's 10 ms. */
  readonly loopDelayP99Ms: number
  readonly loopDelayMaxMs: number
  readonly tokenReviews: number
  readonly podGets: number
  readonly listPages: number
  /** Refusals by code, as the sidecar counted them. */
  readonly refusals: Tally
  /** Since the start of the process: any is a bug. */
  readonly uncaughtPeerErrors: number
  /** The share of the machine's CPU that unrelated processes used, from 0 to 1. */
  readonly othersShare: number
}

export type Storm = Measured & {
  readonly workers: number
  readonly through: number
  readonly throughP50Ms: number
  readonly throughP99Ms: number
  readonly throughLastMs: number
  /** Attempts that came to nothing, as the workers saw it. */
  readonly turnedAway: Tally
  readonly lost: Tally
}

export type Echoes = {
  readonly messages: number
  readonly unanswered: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

const FAILURE = /^(?:auth_failures_total|upgrades_refused_total)\{.*code="([^"]+)"\}$/

/** Runs a part of a storm and measures the sidecar meanwhile. */
export const measure = async <T>(
  rig: StormRig,
  name: string,
  run: () => Promise<T>,
): Promise<Measured & { readonly result: T }> => {
  const asked = await rig.counts()
  rig.memory.resetPeak()
  // The histogram of the event loop's delay restarts with each scrape.
  const before = await rig.metrics()
  const pids = rig.pids()
  const machine = readMachine(pids)
  const startedAt = performance.now()
  const result = await run()
  const seconds = (performance.now() - startedAt) / 1000
  const othersShare = shareOfOthers(machine, readMachine(pids), seconds)
  const after = await rig.metrics()
  const rssPeakMib = rig.memory.peak()
  const counts = await rig.counts()
  const value = (series: string) => after.get(series) ?? Number.NaN
  const cpuBefore = before.get('process_cpu_seconds_total') ?? Number.NaN
  return {
    name,
    seconds,
    cpuSeconds: value('process_cpu_seconds_total') - cpuBefore,
    rssPeakMib,
    loopDelayP99Ms: value('nodejs_eventloop_lag_p99_seconds') * 1000,
    loopDelayMaxMs: value('nodejs_eventloop_lag_max_seconds') * 1000,
    tokenReviews: counts.tokenReviews - asked.tokenReviews,
    podGets: counts.podGets - asked.podGets,
    listPages: counts.lists - asked.lists,
    refusals: refusalsBetween(before, after),
    uncaughtPeerErrors: value('uncaught_peer_errors_total'),
    othersShare,
    result,
  }
}

const refusalsBetween = (
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
): Tally => {
  const refusals: Record<string, number> = {}
  for (const [series, value] of after) {
    const code = FAILURE.exec(series)?.[1]
    const count = value - (before.get(series) ?? 0)
    if (code !== undefined && count > 0) refusals[code] = (refusals[code] ?? 0) + count
  }
  return refusals
}

export const stormOf = ({
  result: { all, throughMs, turnedAway, lost },
  ...measured
}: Measured & { readonly result: Through }): Storm => ({
  ...measured,
  workers: all,
  through: throughMs.length,
  throughP50Ms: percentile(throughMs, 0.5),
  throughP99Ms: percentile(throughMs, 0.99),
  throughLastMs: percentile(throughMs, 1),
  turnedAway,
  lost,
})

export const echoesOf = (answer: LoadAnswer): Echoes => {
  if (answer.kind !== 'echoed') throw new Error(`the load answered ${answer.kind}`)
  const { roundTripsMs, unanswered } = answer
  return {
    messages: roundTripsMs.length,
    unanswered,
    p50Ms: percentile(roundTripsMs, 0.5),
    p99Ms: percentile(roundTripsMs, 0.99),
    maxMs: percentile(roundTripsMs, 1),
  }
}

const percentile = (values: readonly number[], share: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}
