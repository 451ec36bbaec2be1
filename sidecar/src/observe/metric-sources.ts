/** Metrics that are read when somebody scrapes, not when they change. */

import { Counter, Gauge, type Registry } from 'prom-client'

/** Totals of relayed streams; up is from the worker to the gateway. */
export type Carried = {
  readonly bytesUp: number
  readonly bytesDown: number
  readonly messagesUp: number
  readonly messagesDown: number
}

/** Lines that could not be written since the start, by output. */
export type LinesDropped = { readonly audit: number; readonly log: number }

export type MetricSources = {
  /** What all streams have carried since the start, the ended ones included. */
  readonly carried: () => Carried
  readonly streams: () => number
  readonly pendingSockets: () => number
  readonly cacheEntries: () => number
  /** `undefined` before the first fetch. */
  readonly jwksAgeMs: () => number | undefined
  readonly watchedPods: () => number
  /** Milliseconds for which the pod watch cannot be believed; 0 while it can. */
  readonly watchStaleMs: () => number
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
  const dropped = (name: string, help: string, read: () => LinesDropped) =>
    new Counter({
      name: `openclaw_k8s_${name}`,
      help,
      labelNames: ['output'],
      registers,
      collect() {
        const { audit, log } = read()
        this.reset()
        this.inc({ output: 'audit' }, audit)
        this.inc({ output: 'log' }, log)
      },
    })
  const carried = (name: string, help: string, read: (carried: Carried) => [number, number]) =>
    new Counter({
      name: `openclaw_k8s_${name}`,
      help,
      labelNames: ['direction'],
      registers,
      collect() {
        const [up, down] = read(sources().carried())
        this.reset()
        this.inc({ direction: 'up' }, up)
        this.inc({ direction: 'down' }, down)
      },
    })

  gauge('streams', 'Pending admissions and live streams.', () => sources().streams())
  gauge('pending_sockets', 'Sockets that have not been admitted yet.', () =>
    sources().pendingSockets(),
  )
  gauge('verdict_cache_entries', 'Good verdicts in the cache.', () => sources().cacheEntries())
  gauge(
    'jwks_age_seconds',
    "Age of the cluster's signing keys; NaN before the first fetch.",
    () => (sources().jwksAgeMs() ?? Number.NaN) / 1000,
  )
  gauge('watched_pods', 'Pods the watch knows.', () => sources().watchedPods())
  gauge(
    'watch_stale_seconds',
    'How long the pod watch has been out of touch; 0 while it can be believed.',
    () => sources().watchStaleMs() / 1000,
  )
  carried(
    'stream_bytes_total',
    'Bytes relayed; up is from the worker to the gateway.',
    ({ bytesUp, bytesDown }) => [bytesUp, bytesDown],
  )
  carried(
    'stream_messages_total',
    'WebSocket messages relayed; up is from the worker to the gateway.',
    ({ messagesUp, messagesDown }) => [messagesUp, messagesDown],
  )
  dropped(
    'log_lines_dropped_total',
    'Lines that could not be written, by output: audit, standard output; log, standard error.',
    () => sources().linesDropped(),
  )
}
