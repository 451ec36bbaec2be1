/** Readiness: what has to be true before workers are sent here. */

import type { Drain } from '../admissions/drain.ts'
import type { KubeClient } from '../kube/client.ts'
import type { Jwks } from '../kube/jwks.ts'
import { describeScope } from '../kube/scope.ts'
import type { WatchedScopes } from '../kube/watched-scopes.ts'
import { GATEWAY_REMEDY } from './gateway-check.ts'
import type { WorkerWay } from './worker-way.ts'

/** What is missing, in words; `undefined` where nothing is. */
type Objection = string | undefined

export type ReadinessCheck = {
  readonly name: string
  readonly check: () => Objection | Promise<Objection>
  /** What is wrong and does not make the sidecar unready. */
  readonly listWarnings?: () => readonly string[]
}

export type CheckResult = {
  readonly name: string
  readonly objection?: string | undefined
  readonly warnings: readonly string[]
}

/** Asks all checks at once. */
export async function judgeReadiness(
  checks: readonly ReadinessCheck[],
): Promise<{ readonly isReady: boolean; readonly results: readonly CheckResult[] }> {
  const results = await Promise.all(
    checks.map(async ({ name, check, listWarnings = () => [] }) => ({
      name,
      objection: await check(),
      warnings: listWarnings(),
    })),
  )
  return { isReady: results.every(({ objection }) => objection === undefined), results }
}

export type ReadinessOptions = {
  readonly drain: Pick<Drain, 'isUnderWay'>
  readonly jwks: Pick<Jwks, 'ageMs' | 'isReviewOnly'>
  /** The client for TokenReviews. */
  readonly reviews: Pick<KubeClient, 'isRefused'>
  readonly scopes: Pick<WatchedScopes, 'isReady' | 'listStates'>
  /** Without trust nobody is let in, and the cluster is not needed. */
  readonly isTrustEnabled: () => boolean
  readonly checkGateway: () => Promise<Objection>
  /** Whether a gateway that listens takes workers, too. */
  readonly way: Pick<WorkerWay, 'findObjection'>
  /** `undefined` where the dialect has no operator channel. */
  readonly operator: { readonly findObjection: () => Objection } | undefined
}

/**
 * A warning, since only workers who try find out that it is over: without readiness none would come.
 */
const REVIEWS_REFUSED =
  "the API server refuses the sidecar's TokenReviews: no worker with a new token can be admitted"

/** An API server that goes away later does not make the sidecar unready: its streams live on. */
export function createReadiness(options: ReadinessOptions): readonly ReadinessCheck[] {
  const { drain, jwks, reviews, scopes, isTrustEnabled, checkGateway, way, operator } = options
  const unless = (isKnown: boolean, objection: string): Objection =>
    isKnown || !isTrustEnabled() ? undefined : objection
  const checks: readonly ReadinessCheck[] = [
    { name: 'serving', check: () => (drain.isUnderWay ? 'draining' : undefined) },
    {
      name: 'jwks',
      check: () =>
        unless(
          jwks.ageMs !== undefined || jwks.isReviewOnly,
          'no signing keys have been fetched yet',
        ),
      listWarnings: () => [
        ...(jwks.isReviewOnly
          ? ['the cluster serves no keys: only a TokenReview proves a token']
          : []),
        ...(reviews.isRefused ? [REVIEWS_REFUSED] : []),
      ],
    },
    {
      name: 'pods',
      check: () => unless(scopes.isReady, 'pods have not been listed yet'),
      listWarnings: () => listScopeWarnings(scopes),
    },
    {
      name: 'gateway',
      async check() {
        const objection = await checkGateway()
        return objection === undefined ? way.findObjection() : `${objection}. ${GATEWAY_REMEDY}`
      },
    },
  ]
  if (operator === undefined) return checks
  return [...checks, { name: 'operator', check: () => operator.findObjection() }]
}

/** The most scopes named one by one. */
const NAMED_MAX = 10

const listScopeWarnings = (scopes: Pick<WatchedScopes, 'listStates'>): readonly string[] => {
  const bad = scopes.listStates().filter(({ state }) => state !== 'synced')
  const named = bad.slice(0, NAMED_MAX).map(({ scope, state }) => {
    const what = state === 'stale' ? 'the watch is down' : 'pods have not been listed yet'
    return `${describeScope(scope)}: ${what}`
  })
  const others = bad.length - named.length
  return others === 0 ? named : [...named, `${others} other scopes`]
}
