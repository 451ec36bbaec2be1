/** Puts the API server's side together: own credential, signing keys, TokenReview, verdict cache. */

import { reviewToken } from '../authn/token-review.ts'
import { VerdictCache } from '../authn/verdict-cache.ts'
import type { Clock } from '../clock.ts'
import type { Config } from '../config/schema.ts'
import type { Verdict } from '../denial.ts'
import type { Claims, Identity } from '../identity.ts'
import { KubeClient } from '../kube/client.ts'
import { locateApiServer } from '../kube/in-cluster.ts'
import { Jwks } from '../kube/jwks.ts'
import { OwnCredentials } from '../kube/own-credentials.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Surroundings } from './surroundings.ts'

/** Without a current pod watch a verdict is believed for no longer than this, in milliseconds. */
const TTL_WITHOUT_WATCH_MS = 10_000
const READS = { concurrency: 2, queue: 64 }
const REVIEW_PATH = '/apis/authentication.k8s.io/v1/tokenreviews'
const JWKS_DEADLINE_MS = 5000

export function composeAuthn(config: Config, around: Surroundings, metrics: Metrics) {
  const { clock, env, log, readFile } = around
  const { review, k8sTrust } = config
  const { apiServer, caFile, tokenFile } = locateApiServer(config.kubernetes, env)
  const common = {
    apiServer,
    clock,
    credentials: new OwnCredentials({ tokenFile, caFile, readFile, clock }),
    onOwnCredentialRefused(status: number) {
      metrics.ownCredentialErrors.inc()
      log.error({ status }, 'the API server refuses our own credential: check token and RBAC')
    },
  }
  const { concurrency, queue } = review
  const reviews = new KubeClient({ ...common, concurrency, queue, faultCode: 'review_unavailable' })
  const reads = new KubeClient({
    ...common,
    ...READS,
    faultCode: 'keys_unavailable',
  })
  const jwks = new Jwks({
    client: reads,
    clock,
    cooldownMs: config.jwks.cooldown,
    refreshMs: config.jwks.refresh,
    staleAfterMs: config.jwks.staleAfter,
    deadlineMs: JWKS_DEADLINE_MS,
    onFetch(outcome, error) {
      metrics.jwksFetches.inc({ outcome })
      if (outcome === 'failed') log.warn({ err: error }, 'the signing keys could not be fetched')
    },
  })
  const post = async (body: object) =>
    (await reviews.request({ method: 'POST', path: REVIEW_PATH, body, deadlineMs: review.timeout }))
      .body
  const verdicts = new VerdictCache({
    audiences: k8sTrust.audiences,
    ttlMs: () => Math.min(review.cacheTtl, TTL_WITHOUT_WATCH_MS),
    negativeTtlMs: review.negativeTtl,
    entriesMax: review.cacheEntries,
    review: timeReview(metrics, clock, (token, claims) =>
      reviewToken(token, claims, k8sTrust.audiences, post),
    ),
    clock,
    onOutcome: (outcome) => metrics.verdictLookups.inc({ outcome }),
  })
  return {
    jwks,
    verdicts,
    isReady: () => !k8sTrust.enabled || jwks.current() !== undefined,
    async closeKube() {
      await Promise.all([reviews.close(), reads.close()])
    },
  }
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
