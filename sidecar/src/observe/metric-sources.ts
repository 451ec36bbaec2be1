/** Metrics that are read at each scrape rather than updated on change. */

import { Counter, Gauge, type Registry } from 'prom-client'
import type { RelayTotals } from '../lib/relay-totals.ts'
import { readCertificates, type CertificatesSeen } from './certificate-metrics.ts'

/** Lines that could not be written since the start, by output. */
export type LinesDropped = { readonly audit: number; readonly log: number }

/** What workers offer for hosted sessions, by the namespace of their pods. */
export type SessionHosting = {
  readonly slots: ReadonlyMap<string, { readonly free: number; readonly used: number }>
  /** Workers that offer to host sessions although the policy forbids it. */
  readonly forbidden: ReadonlyMap<string, number>
}

const SCOPE_KINDS = ['cluster', 'namespace', 'serviceaccount'] as const
const SCOPE_STATES = ['synced', 'stale', 'unsynced'] as const

/** A scope under watch: how wide it is, and whether it can be trusted. */
type ScopeSeen = {
  readonly kind: (typeof SCOPE_KINDS)[number]
  readonly state: (typeof SCOPE_STATES)[number]
}

/** A check of `/readyz`; it fails if there is an objection. */
type CheckSeen = { readonly name: string; readonly objection?: string | undefined }

export type MetricSources = {
  readonly readiness: () => Promise<readonly CheckSeen[]>
  /** The end of the sidecar's own token, in seconds since the epoch. */
  readonly ownTokenExpiresAt: () => number | undefined
  /** What all streams have carried since the start, ended ones included. */
  readonly carried: () => RelayTotals
  readonly streams: () => number
  /** Pods with at least one open stream, by namespace. */
  readonly connectedWorkers: () => ReadonlyMap<string, number>
  /** `undefined` while the gateway does not tell. */
  readonly sessionHosting: () => SessionHosting | undefined
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
  /** The certificates of the worker port; none without TLS. */
  readonly certificates: () => CertificatesSeen
  readonly linesDropped: () => LinesDropped
}

type ScrapeOptions = {
  readonly sources: () => MetricSources
  /** Namespaces with a series even where there is nothing to count. */
  readonly namespaces: readonly string[]
  readonly registers: Registry[]
}

export function readOnScrape(options: ScrapeOptions): void {
  readTotals(options)
  readWorkers(options)
  readReadiness(options)
}

/** Whether workers are sent here: a sidecar that is not ready gets none, so no attempt fails. */
function readReadiness({ sources, registers }: ScrapeOptions): void {
  const ready = new Gauge({
    name: 'openclaw_k8s_ready',
    help: '1 if a check of /readyz passes, 0 if it fails, by check: serving, jwks, pods, gateway, and operator with the protocol openclaw.',
    labelNames: ['check'],
    registers: [],
    async collect() {
      for (const { name: check, objection } of await sources().readiness()) {
        this.set({ check }, Number(objection === undefined))
      }
    },
  })
  const ownToken = new Gauge({
    name: 'openclaw_k8s_own_token_expiry_timestamp_seconds',
    help: "When the sidecar's own token for the API server expires; NaN if it names no time.",
    registers: [],
    collect() {
      this.set(sources().ownTokenExpiresAt() ?? Number.NaN)
    },
  })
  for (const register of registers) {
    register.registerMetric(ready)
    register.registerMetric(ownToken)
  }
}

/** What is counted by the namespace of the workers. */
function readWorkers({ sources, namespaces, registers }: ScrapeOptions): void {
  const gauge = <Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    read: (gauge: Gauge<Label>) => void,
  ) =>
    new Gauge({
      name: `openclaw_k8s_${name}`,
      help,
      labelNames,
      registers,
      collect() {
        this.reset()
        read(this)
      },
    })
  /** The named namespaces, and those something was counted in. */
  const withNamed = (counted: ReadonlyMap<string, unknown>) =>
    new Set([...namespaces, ...counted.keys()])

  gauge(
    'connected_workers',
    'Worker pods with an open stream, by namespace.',
    ['namespace'],
    (workers) => {
      const counts = sources().connectedWorkers()
      for (const namespace of withNamed(counts)) {
        workers.set({ namespace }, counts.get(namespace) ?? 0)
      }
    },
  )
  gauge(
    'session_slots',
    'Slots for hosted sessions on connected workers, by namespace and state: free, used. Absent while the gateway does not tell.',
    ['namespace', 'state'],
    (slots) => {
      const hosting = sources().sessionHosting()
      if (hosting === undefined) return
      for (const namespace of withNamed(hosting.slots)) {
        const { free, used } = hosting.slots.get(namespace) ?? { free: 0, used: 0 }
        slots.set({ namespace, state: 'free' }, free)
        slots.set({ namespace, state: 'used' }, used)
      }
    },
  )
  gauge(
    'session_hosting_forbidden',
    'Connected workers that offer to host sessions against the policy, by namespace. Absent while the gateway does not tell.',
    ['namespace'],
    (workers) => {
      const hosting = sources().sessionHosting()
      if (hosting === undefined) return
      for (const namespace of withNamed(hosting.forbidden)) {
        workers.set({ namespace }, hosting.forbidden.get(namespace) ?? 0)
      }
    },
  )
}

function readTotals({ sources, registers }: ScrapeOptions): void {
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
    'How long the pod watch of a scope has been stale, once it was listed; 0 while all are current.',
    () => sources().watchStaleMs() / 1000,
  )
  readCluster(sources, registers)
  readCertificates(() => sources().certificates(), registers)
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
