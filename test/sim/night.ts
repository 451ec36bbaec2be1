/** What must be true when everybody has gone home: nothing is left, and the books balance. */

import { request } from 'node:http'
import { sumOf } from '../kit/books.ts'
import { parseMetrics } from '../kit/parse-metrics.ts'
import { countLibraryTimers } from './timers.ts'
import type { World } from './world.ts'

/** By the name of a series, its labels included. */
type Scrape = ReadonlyMap<string, number>

/** Reads `/metrics` as a scrape would. The clock must run meanwhile. */
export const scrape = async ({ network, adminPort }: World): Promise<Scrape> => {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const asked = request(
    {
      path: '/metrics',
      createConnection: () => network.dial({ port: adminPort }, '10.0.0.9'),
      headers: { host: 'sidecar', connection: 'close' },
    },
    (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => resolve(Buffer.concat(chunks).toString()))
    },
  )
  asked.on('error', reject)
  asked.end()
  return parseMetrics(await promise)
}

/** What must be 0 without a worker. */
const AT_REST = [
  'openclaw_k8s_sessions_active',
  'openclaw_k8s_connected_workers',
  'openclaw_k8s_streams',
  'openclaw_k8s_pending_sockets',
  'openclaw_k8s_verdict_cache_entries',
  'openclaw_k8s_watched_pods',
  'openclaw_k8s_uncaught_peer_errors_total',
  'openclaw_k8s_log_lines_dropped_total',
]

/**
 * A verdict on the token of a pod that is gone may be kept for this long: the API server's cache
 * answers for 10 s more, the answer takes at most 10 s, and the verdict counts for the default of
 * `review.cacheTtl`.
 */
const VERDICT_MS = 10_000 + 10_000 + 60_000

/** Whether no verdict can be left on the token of a pod that is gone by now. */
export const isQuiet = ({ truth, now }: World): boolean =>
  truth.pods.values().every(({ goneAt = -Infinity }) => now() - goneAt > VERDICT_MS)

/** The sidecar was told that the pods of a quiet world are gone: it keeps no verdict on their tokens. */
export const judgeVerdicts = (metrics: Scrape, { oracle, truth, now }: World): void => {
  const isHidden = truth.pods
    .values()
    .some(
      ({ goneAt = now(), toldGoneAt }) => toldGoneAt === undefined && now() - goneAt <= VERDICT_MS,
    )
  if (isHidden) return
  const kept = sumOf(metrics, 'openclaw_k8s_verdict_cache_entries')
  if (kept > 0) oracle.fail(`${kept} verdicts on the tokens of pods that are gone are kept`)
}

/** Every worker has left, every pod is gone, and the last aggregated line has been written. */
export const judgeBooks = (metrics: Scrape, { gateway, oracle }: World): void => {
  const devices = gateway.deviceNames()
  if (devices.length > 0) oracle.fail(`the gateway still knows ${devices.join(', ')}`)
  for (const name of AT_REST) {
    const value = sumOf(metrics, name)
    if (value !== 0) oracle.fail(`${name} is ${value} when everybody has left`)
  }
  const { admitted, refused, closed } = oracle.audited
  const succeeded = metrics.get('openclaw_k8s_auth_attempts_total{result="success"}') ?? 0
  const failed = metrics.get('openclaw_k8s_auth_attempts_total{result="failed"}') ?? 0
  balance(oracle, 'admitted', admitted, succeeded)
  balance(
    oracle,
    'refused',
    refused,
    failed + sumOf(metrics, 'openclaw_k8s_upgrades_refused_total'),
  )
  balance(oracle, 'closed', closed, sumOf(metrics, 'openclaw_k8s_stream_closes_total'))
}

const balance = (oracle: World['oracle'], what: string, audited: number, counted: number): void => {
  if (audited !== counted) oracle.fail(`${audited} ${what} in the audit, ${counted} in the metrics`)
}

/** The sidecar has stopped: it holds no connection, and waits for nothing. */
export const judgeRest = ({ network, clock, oracle }: World): void => {
  for (const { peer, from, client, server } of network.connections) {
    const own = peer === 'workers' || peer === 'admin' ? server : client
    if (!own.destroyed) oracle.fail(`a connection from ${from} to ${peer} is left`)
  }
  const left = clock.pending - countLibraryTimers()
  if (left > 0) oracle.fail(`${left} timers are left`)
}
