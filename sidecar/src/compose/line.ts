/** Puts the line together: who proves a token, what binds it to its pod, who is in and until when. */

import { AdmissionRegistry } from '../admissions/registry.ts'
import { Revocation } from '../admissions/revocation.ts'
import { TokenAuthenticator } from '../authn/authenticator.ts'
import { createPrecheck } from '../authn/precheck.ts'
import { createTokenReview } from '../authn/token-review.ts'
import { VerdictCache, verdictTtl } from '../authn/verdict-cache.ts'
import { PodBinding } from '../authz/pod-binding.ts'
import { scopesOf } from '../authz/watch-scopes.ts'
import type { Account } from '../identity.ts'
import { Jwks } from '../kube/jwks.ts'
import { createLookups } from '../kube/lookups.ts'
import { PodWatch } from '../kube/pod-watch.ts'
import { TokenBuckets } from '../lib/token-buckets.ts'
import { groupStrangers } from '../lib/address-group.ts'
import { Outage } from '../lib/outage.ts'
import type { Metrics } from '../observe/metrics.ts'
import { WatchLog } from '../observe/watch-log.ts'
import type { Cluster } from './cluster.ts'
import type { LiveConfig } from './live-config.ts'
import type { Runtime } from './runtime.ts'

/** TokenReviews a second that may be spent on tokens whose signature cannot be checked. */
const UNVERIFIED_PER_ADDRESS = { ratePerSecond: 1, burst: 5 }
const UNVERIFIED_IN_ALL = { ratePerSecond: 20, burst: 50 }
/** The same where the cluster serves no keys, and each is of a pod that the watch shows. */
const REVIEW_ONLY_IN_ALL = { ratePerSecond: 100, burst: 500 }
const REVIEW_ONLY =
  'the cluster serves no signing keys (review-only mode): every token is proven by a TokenReview alone, ' +
  'for pods that the watch shows at their own address'
const ISSUER_CHANGED =
  "the cluster's issuer has changed: tokens of the earlier one are still sent to TokenReviews, until the sidecar restarts"
const ISSUER_UNKNOWN =
  "the cluster's issuer could not be asked for: its last answer stays in force; without one, " +
  'any issuer goes to a TokenReview and there are no local verdicts'
const JWKS_DEADLINE_MS = 5000

type Parts = {
  readonly live: LiveConfig
  readonly runtime: Runtime
  readonly cluster: Cluster
  readonly metrics: Metrics
}

export type Line = ReturnType<typeof composeLine>

export function composeLine({ live, runtime, cluster, metrics }: Parts) {
  const { clock, random, log } = runtime
  const { limits, gateway } = live.config
  const watchLog = new WatchLog({ clock, log })
  const watch = new PodWatch({
    lists: cluster.lists,
    watches: cluster.watches,
    clock,
    random,
    onDown: (watched, findCause) => watchLog.broke(watched, findCause),
    onUp: (watched, downMs) => watchLog.worked(watched, downMs),
  })
  const registry = new AdmissionRegistry({
    streamsMax: limits.streams,
    // A pod of the openclaw protocol has one stream; those on their way in are counted by address.
    streamsPerPodMax:
      gateway.protocol === 'stream' ? limits.streamsPerPod : limits.pendingPerAddress,
    hostedPerPodMax: gateway.sessionHosting ? limits.hostedStreamsPerPod : 0,
    groupOf: groupStrangers((address) => watch.hasAddress(address)),
    clock,
  })
  const binding = new PodBinding({
    pods: watch,
    rules: () => live.config.k8sTrust,
    clock,
    ...createLookups(cluster.pods, live.config.review.timeout),
  })
  const revocation = new Revocation({
    registry,
    watch,
    binding,
    rules: () => live.lifetimeRules,
    policy: () => live.policy,
    clock,
  })
  const tokens = composeTokens({ live, runtime, cluster, metrics }, { watch, binding })
  // Forget the verdicts before the streams end: their workers come back at once.
  watch.subscribe(tokens.authenticator)
  watch.subscribe(revocation)
  live.subscribe({ policyChanged: () => watch.watch(scopesOf(live.config.k8sTrust)) })
  live.subscribe(revocation)
  return { ...tokens, registry, watch, binding, revocation }
}

/** Everything that is asked about a token. */
function composeTokens(
  { live, runtime, cluster, metrics }: Parts,
  { watch, binding }: { readonly watch: PodWatch; readonly binding: PodBinding },
) {
  const { clock } = runtime
  const { review, k8sTrust } = live.config
  const watchStaleMs = (account: Account) => watch.scopes.staleForMs(account)
  const jwks = composeJwks({ live, runtime, cluster, metrics })
  const precheck = createPrecheck({
    rules: () => live.claimRulesFor(jwks.issuers),
    keys: jwks,
    clock,
    unverifiedBudget: {
      perAddress: new TokenBuckets({ ...UNVERIFIED_PER_ADDRESS, clock }),
      inAll: new TokenBuckets({ ...UNVERIFIED_IN_ALL, clock }),
      seen: new TokenBuckets({ ...REVIEW_ONLY_IN_ALL, clock }),
    },
    groupOf: groupStrangers((address) => watch.hasAddress(address)),
    findUnseen: (claims, address) => binding.findUnseen({ claims, address }),
  })
  const verdicts = new VerdictCache({
    audiences: k8sTrust.audiences,
    ttlMs: (account) => verdictTtl(review.cacheTtl, watchStaleMs(account)),
    negativeTtlMs: review.negativeTtl,
    entriesMax: review.cacheEntries,
    review: createTokenReview({
      client: cluster.reviews,
      audiences: k8sTrust.audiences,
      deadlineMs: review.timeout,
      clock,
      isAlive: ({ podUid }) => watch.isAlive(podUid),
      onReviewed: (outcome, seconds) => metrics.reviewSeconds.observe({ outcome }, seconds),
    }),
    clock,
    onOutcome: (outcome) => metrics.verdictLookups.inc({ outcome }),
  })
  const authenticator = new TokenAuthenticator({
    verdicts,
    clock,
    rules: () => live.authenticationRules,
    watchStaleMs,
    isIssuerKnown: ({ issuer }) =>
      live.claimRulesFor(jwks.issuers).issuers()?.includes(issuer) ?? jwks.isIssuerAbsent,
    entriesMax: review.cacheEntries,
  })
  return { jwks, precheck, verdicts, authenticator }
}

/** The cluster's signing keys, and what is told of them. */
function composeJwks({ live, runtime, cluster, metrics }: Parts): Jwks {
  const { clock, log, random } = runtime
  const { jwks: keys, kubernetes } = live.config
  const outage = new Outage({
    clock,
    onBegin: (err) => log.warn({ err }, 'the signing keys could not be fetched'),
    onEnd: (downMs) => log.info({ downMs }, 'the signing keys are fetched again'),
  })
  const issuerOutage = new Outage({
    clock,
    onBegin: (err) => log.warn({ err }, ISSUER_UNKNOWN),
    onEnd: (downMs) => log.info({ downMs }, "the cluster's issuer can be asked for again"),
  })
  return new Jwks({
    client: cluster.keys,
    clock,
    cooldownMs: keys.cooldown,
    refreshMs: keys.refresh,
    staleAfterMs: keys.staleAfter,
    deadlineMs: JWKS_DEADLINE_MS,
    random,
    isIssuerConfigured: kubernetes.issuers !== undefined,
    onFetched() {
      metrics.jwksFetches.inc({ outcome: 'ok' })
      outage.worked()
    },
    onFailed(err) {
      metrics.jwksFetches.inc({ outcome: 'failed' })
      outage.failed(err)
    },
    onIssuerAsked(err) {
      if (err === undefined) issuerOutage.worked()
      else issuerOutage.failed(err)
    },
    onIssuerChanged: (issuers) => log.warn({ issuers }, ISSUER_CHANGED),
    onReviewOnly(isReviewOnly) {
      if (isReviewOnly) log.warn(REVIEW_ONLY)
      else log.info('the cluster serves signing keys again: review-only mode is over')
    },
  })
}
