/** Puts the API server's side together: own credential, signing keys, TokenReview, verdict cache. */

import { reviewToken } from '../authn/token-review.ts'
import { VerdictCache } from '../authn/verdict-cache.ts'
import { Voucher } from '../authn/authenticator.ts'
import type { Clock } from '../lib/clock.ts'
import type { Verdict } from '../denial.ts'
import type { Claims, Identity } from '../identity.ts'
import { Jwks } from '../kube/jwks.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Cluster } from './cluster.ts'
import type { Settings } from './live-config.ts'
import type { Surroundings } from './runtime.ts'

export type AuthnParts = {
  readonly settings: Settings
  readonly around: Surroundings
  readonly cluster: Cluster
  readonly metrics: Metrics
  /** Milliseconds for which the pod watch cannot be believed; 0 while it can. */
  readonly watchStaleMs: () => number
}

/** Without a current pod watch a verdict is believed for no longer than this, in milliseconds. */
const TTL_WITHOUT_WATCH_MS = 10_000
/** The API server ends each watch after a while; the next one follows within this, in milliseconds. */
const RECONNECT_MS_MAX = 2000
const REVIEW_PATH = '/apis/authentication.k8s.io/v1/tokenreviews'
const JWKS_DEADLINE_MS = 5000

export function composeAuthn({ settings, around, cluster, metrics, watchStaleMs }: AuthnParts) {
  const { clock, log } = around
  const { review, jwks: keys, k8sTrust } = settings.config
  const jwks = new Jwks({
    client: cluster.keys,
    clock,
    cooldownMs: keys.cooldown,
    refreshMs: keys.refresh,
    staleAfterMs: keys.staleAfter,
    deadlineMs: JWKS_DEADLINE_MS,
    onFetch(outcome, error) {
      metrics.jwksFetches.inc({ outcome })
      if (outcome === 'failed') log.warn({ err: error }, 'the signing keys could not be fetched')
    },
  })
  const post = async (body: object) => {
    const request = { method: 'POST', path: REVIEW_PATH, body, deadlineMs: review.timeout } as const
    return (await cluster.reviews.request(request)).body
  }
  const verdicts = new VerdictCache({
    audiences: k8sTrust.audiences,
    ttlMs: () =>
      watchStaleMs() <= RECONNECT_MS_MAX
        ? review.cacheTtl
        : Math.min(review.cacheTtl, TTL_WITHOUT_WATCH_MS),
    negativeTtlMs: review.negativeTtl,
    entriesMax: review.cacheEntries,
    review: timeReview(metrics, clock, (token, claims) =>
      reviewToken(token, claims, k8sTrust.audiences, post),
    ),
    clock,
    onOutcome: (outcome) => metrics.verdictLookups.inc({ outcome }),
  })
  const voucher = new Voucher({
    verdicts,
    clock,
    rules: () => ({
      expiredTokenReconnectGraceMs: settings.config.k8sTrust.expiredTokenReconnectGrace,
      onApiOutage: settings.config.k8sTrust.onApiOutage,
      maxWatchStalenessMs: settings.config.k8sTrust.maxWatchStaleness,
    }),
    watchStaleMs,
    entriesMax: review.cacheEntries,
  })
  return { jwks, verdicts, voucher }
}

type Review = (token: string, claims: Claims) => Promise<Verdict<Identity>>

/** Measures each TokenReview by its outcome. */
function timeReview({ reviewSeconds }: Metrics, clock: Clock, review: Review): Review {
  return async (token, claims) => {
    const startedAt = clock.monotonic()
    let outcome = 'fault'
    try {
      const verdict = await review(token, claims)
      outcome = verdict.ok ? 'authenticated' : 'rejected'
      return verdict
    } finally {
      reviewSeconds.observe({ outcome }, (clock.monotonic() - startedAt) / 1000)
    }
  }
}
