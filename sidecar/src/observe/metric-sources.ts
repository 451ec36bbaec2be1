/** Metrics that are read at each scrape rather than updated on change. */

import { Counter, Gauge, type Registry } from 'prom-client'
import type { RelayTotals } from '../lib/relay-totals.ts'

/** Lines that could not be written since the start, by output. */
export type LinesDropped = { readonly audit: number; readonly log: number }

const SCOPE_KINDS = ['cluster', 'namespace', 'serviceaccount'] as const
const SCOPE_STATES = ['synced', 'stale', 'unsynced'] as const

/** A scope under watch: how wide it is, and whether it can be trusted. */
type ScopeSeen = {
  readonly kind: (typeof SCOPE_KINDS)[number]
  readonly state: (typeof SCOPE_STATES)[number]
}

export type MetricSources = {
  /** What all streams have carried since the start, ended ones included. */
  readonly carried: () => RelayTotals
  readonly streams: () => number
  readonly pendingSockets: () => number
  readonly cacheEntries: () => number
  /** `undefined` before the first fetch. */
  readonly jwksAgeMs: () => number | undefined
  readonly isReviewOnly: () => boolean
  readonly watchedPods: () => number
  /** How long the pod watch has been stale, in milliseconds; 0 while it is current. */
  readonly watchStaleMs: () => number
  /** The scopes under watch. */
  readonly scopes: () => Iterable<ScopeSeen>
  readonly linesDropped: () => LinesDropped
}

export function readOnScrape(sources: () => MetricSources, registers: Registry[]): void {
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `openclaw_k8s_${name}`,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })
  const counter = (
    name: string,
    help: string,
    label: string,
    read: () => Readonly<Record<string, number>>,
  ) =>
    new Counter({
      name: `openclaw_k8s_${name}`,
      help,
      labelNames: [label],
      registers,
      collect() {
        const counts = Object.entries(read())
        this.reset()
        for (const [value, count] of counts) this.inc({ [label]: value }, count)
      },
    })

  gauge('streams', 'Pending admissions and live streams.', () => sources().streams())
  gauge('pending_sockets', 'Sockets of workers that have not been admitted yet.', () =>
    sources().pendingSockets(),
  )
  gauge('verdict_cache_entries', 'Positive verdicts in the cache.', () => sources().cacheEntries())
  gauge(
    'jwks_age_seconds',
    "Age of the cluster's signing keys; NaN before the first fetch.",
    () => (sources().jwksAgeMs() ?? Number.NaN) / 1000,
  )
  gauge('watched_pods', 'Pods in the watch.', () => sources().watchedPods())
  gauge(
    'watch_stale_seconds',
    'How long the pod watch of a scope has been stale; 0 while all are current.',
    () => sources().watchStaleMs() / 1000,
  )
  readCluster(sources, registers)
  counter(
    'stream_bytes_total',
    'Bytes relayed; up is from the worker to the gateway.',
    'direction',
    () => {
      const { bytesUp: up, bytesDown: down } = sources().carried()
      return { up, down }
    },
  )
  counter(
    'stream_messages_total',
    'WebSocket messages relayed; up is from the worker to the gateway.',
    'direction',
    () => {
      const { messagesUp: up, messagesDown: down } = sources().carried()
      return { up, down }
    },
  )
  counter(
    'log_lines_dropped_total',
    'Lines that could not be written, by output: audit (standard output) or log (standard error).',
    'output',
    () => sources().linesDropped(),
  )
}

/** How much of the cluster the sidecar can use. */
function readCluster(sources: () => MetricSources, registers: Registry[]): void {
  const reviewOnly = new Gauge({
    name: 'openclaw_k8s_review_only',
    help: '1 while the cluster serves no signing keys, and only TokenReviews prove tokens.',
    registers: [],
    collect() {
      this.set(Number(sources().isReviewOnly()))
    },
  })
  const watchScopes = new Gauge({
    name: 'openclaw_k8s_watch_scopes',
    help: 'Scopes under watch, by kind and state: synced, stale (no watch to trust), unsynced (not listed yet).',
    labelNames: ['kind', 'state'],
    registers: [],
    collect() {
      for (const kind of SCOPE_KINDS) for (const state of SCOPE_STATES) this.set({ kind, state }, 0)
      for (const { kind, state } of sources().scopes()) this.inc({ kind, state })
    },
  })
  for (const register of registers) {
    register.registerMetric(reviewOnly)
    register.registerMetric(watchScopes)
  }
}
