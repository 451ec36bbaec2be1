/** The metrics: every name, label and bucket the sidecar exposes, each with its meaning. */

import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import { CODES, isFault, type Code } from '../denial.ts'
import { GATEWAY_REFUSALS } from '../gateway-refusal.ts'
import { TLS_FAILURES } from './tls-failures.ts'
import { readOnScrape, type MetricSources } from './metric-sources.ts'

export type MetricsOptions = {
  /** Called at each scrape only. */
  readonly sources: () => MetricSources
  readonly version: string
  /** Namespaces that start at 0: those the allow-list names exactly. */
  readonly namespaces: readonly string[]
  /** The routes of session hosting, which all start at 0. Default none. */
  readonly routes?: readonly string[]
}

const LATENCY_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const DURATION_BUCKETS_S = [1, 10, 60, 300, 1800, 3600, 14_400, 43_200, 86_400]

export type Metrics = ReturnType<typeof createFamilies> & { readonly register: Registry }

/**
 * Labels come from closed sets: never a pod, a user or a token. The allow-list bounds `namespace`.
 * Every value of a closed set starts at 0, so that a rate has a starting point.
 */
export function createMetrics(options: MetricsOptions): Metrics {
  const { sources, version, namespaces, routes = [] } = options
  const register = new Registry()
  collectDefaultMetrics({ register })
  const families = createFamilies([register])
  readOnScrape({ sources, namespaces, registers: [register] })
  families.buildInfo.set({ version }, 1)
  initialize(families, { namespaces, routes })
  return { ...families, register }
}

const createFamilies = (registers: Registry[]) => {
  const make = createMakers(registers)
  return {
    ...createHostingFamilies(make),
    ...createWorkerFamilies(make),
    ...createClusterFamilies(make),
  }
}

/** Counters, gauges and histograms in seconds, with the prefix all names share. */
function createMakers(registers: Registry[]) {
  const counter = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
    new Counter({ name: `openclaw_k8s_${name}`, help, labelNames, registers })
  const gauge = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
    new Gauge({ name: `openclaw_k8s_${name}`, help, labelNames, registers })
  const seconds = <Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    buckets = LATENCY_BUCKETS_S,
  ) => new Histogram({ name: `openclaw_k8s_${name}`, help, labelNames, buckets, registers })
  return { counter, gauge, seconds }
}

type Makers = ReturnType<typeof createMakers>

/** Hosted sessions, besides the streams of their workers. */
function createHostingFamilies({ counter, gauge }: Makers) {
  return {
    hostedStreamsActive: gauge(
      'hosted_streams_active',
      'Open streams and transfers of hosted sessions, besides the streams of their workers.',
      [],
    ),
    hostedRequests: counter(
      'hosted_requests_total',
      'Requests of hosted sessions, by route and result: success, failed. The counters of attempts and streams have them too.',
      ['route', 'result'],
    ),
  }
}

/** Admissions and streams of workers. */
function createWorkerFamilies({ counter, gauge, seconds }: Makers) {
  return {
    authAttempts: counter('auth_attempts_total', 'Workers that sent a credential, by result.', [
      'result',
    ]),
    authFailures: counter(
      'auth_failures_total',
      'Failed attempts by code and kind: denial (refused) or fault (no decision possible).',
      ['kind', 'code'],
    ),
    upgradesRefused: counter(
      'upgrades_refused_total',
      'Connections and requests refused before a credential was found, by code.',
      ['code'],
    ),
    admissionSeconds: seconds(
      'admission_duration_seconds',
      'Time from the upgrade request to the end of an attempt, by result.',
      ['result'],
    ),
    sessionsActive: gauge('sessions_active', 'Open streams of admitted workers, by namespace.', [
      'namespace',
    ]),
    streamCloses: counter(
      'stream_closes_total',
      'Ended streams, by code; completed if a peer closed the stream.',
      ['code'],
    ),
    streamSeconds: seconds(
      'stream_duration_seconds',
      'Duration of ended streams.',
      [],
      DURATION_BUCKETS_S,
    ),
    revocationSeconds: seconds(
      'revocation_latency_seconds',
      'Time from the moment a revocation was known to the end of the stream.',
      [],
    ),
    uncaughtPeerErrors: counter(
      'uncaught_peer_errors_total',
      'Errors of peer sockets without a listener: bugs the sidecar survived. Should always be 0.',
      [],
    ),
    tlsFailures: counter<'reason'>(
      'tls_handshake_failures_total',
      `Failed TLS handshakes of the worker port, by reason: ${Object.keys(TLS_FAILURES).join(', ')}.`,
      ['reason'],
    ),
    configReloads: counter(
      'config_reloads_total',
      'Configuration reloads, by outcome: ok, failed.',
      ['outcome'],
    ),
    configReloaded: gauge(
      'config_last_reload_successful',
      '1 if the last reload of configuration and certificates worked, or there was none; 0 while the old ones stay in force.',
      [],
    ),
  }
}

/** The sidecar's requests to the cluster and the gateway, and the sidecar itself. */
function createClusterFamilies({ counter, gauge, seconds }: Makers) {
  return {
    verdictLookups: counter(
      'verdict_cache_lookups_total',
      'Verdict lookups, by outcome: hit, miss, negative, shared with a review in progress.',
      ['outcome'],
    ),
    reviewSeconds: seconds(
      'token_review_duration_seconds',
      'TokenReviews by outcome: authenticated, rejected, fault.',
      ['outcome'],
    ),
    jwksFetches: counter(
      'jwks_fetches_total',
      "Fetches of the cluster's signing keys, by outcome: ok, failed.",
      ['outcome'],
    ),
    gatewayRefusals: counter(
      'gateway_refusals_total',
      'Connections that the gateway refused, by its own reason; other for one that is not known.',
      ['reason'],
    ),
    ownCredentialErrors: counter(
      'own_credential_errors_total',
      "Number of times the API server refused the sidecar's own credential.",
      [],
    ),
    buildInfo: gauge('build_info', 'Always 1; the label is the version.', ['version']),
  }
}

function initialize(
  families: ReturnType<typeof createFamilies>,
  { namespaces, routes }: Required<Pick<MetricsOptions, 'namespaces' | 'routes'>>,
): void {
  for (const result of ['success', 'failed']) {
    for (const route of routes) families.hostedRequests.inc({ route, result }, 0)
    families.authAttempts.inc({ result }, 0)
    families.admissionSeconds.zero({ result })
  }
  for (const code of Object.keys(CODES) as Code[]) {
    families.authFailures.inc({ kind: kindOf(code), code }, 0)
    families.upgradesRefused.inc({ code }, 0)
    families.streamCloses.inc({ code }, 0)
  }
  families.streamCloses.inc({ code: 'completed' }, 0)
  for (const reason of Object.keys(TLS_FAILURES)) families.tlsFailures.inc({ reason }, 0)
  families.configReloaded.set(1)
  for (const reason of Object.keys(GATEWAY_REFUSALS)) families.gatewayRefusals.inc({ reason }, 0)
  for (const outcome of ['hit', 'miss', 'negative', 'shared']) {
    families.verdictLookups.inc({ outcome }, 0)
  }
  for (const outcome of ['authenticated', 'rejected', 'fault']) {
    families.reviewSeconds.zero({ outcome })
  }
  for (const outcome of ['ok', 'failed']) {
    families.jwksFetches.inc({ outcome }, 0)
    families.configReloads.inc({ outcome }, 0)
  }
  for (const namespace of namespaces) families.sessionsActive.set({ namespace }, 0)
}

export const kindOf = (code: Code): 'denial' | 'fault' => (isFault(code) ? 'fault' : 'denial')
