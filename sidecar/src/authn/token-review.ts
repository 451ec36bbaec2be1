/** TokenReview: asks the cluster about a token and trusts only an answer that names this pod. */

import type { LRUCache } from 'lru-cache'
import { denied, granted, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import { identityOf, userNameOf, type Claims, type Identity } from '../identity.ts'
import type { KubeClient, KubeRequest } from '../kube/client.ts'
import { ttlCache } from '../lib/bounded-lru.ts'
import type { Clock } from '../lib/clock.ts'
import { judgeReviewError, quoteReviewError, type ReviewError } from './review-error.ts'

/** How a TokenReview ended: `fault` when there was no usable answer. */
type ReviewOutcome = 'authenticated' | 'rejected' | 'fault'

export type TokenReviewOptions = {
  readonly client: Pick<KubeClient, 'request'>
  readonly audiences: readonly string[]
  /** For one review with its retry, in milliseconds. */
  readonly deadlineMs: number
  readonly clock: Clock
  /** Whether the watch shows this pod alive. */
  readonly isAlive: (claims: Claims) => boolean
  readonly onReviewed: (outcome: ReviewOutcome, seconds: number) => void
}

/**
 * The API server answered, and could not decide either. A local check may not stand in for it, as it
 * does in an outage: the API server may know something that speaks against the token.
 */
export class ReviewUndecided extends Fault {}

export type ReviewToken = (token: string, claims: Claims) => Promise<Verdict<Identity>>

const EXTRA = 'authentication.kubernetes.io/'
const CREDENTIAL_ID_PREFIX = 'JTI='
/**
 * Before the second question about a token that "has been invalidated", in milliseconds: a failed
 * lookup in the API server would most likely fail again at once.
 */
const SECOND_QUESTION_MS = 1000
/** By then a watch that shows the pod alive has ended, and the next one knows, in milliseconds. */
const INVALIDATED_MS_MAX = 40_000
/** What was said longer ago belongs to another outage, in milliseconds. */
const INVALIDATED_TTL_MS = 3 * INVALIDATED_MS_MAX
const INVALIDATED_MAX = 10_000

/** The request for a review (authentication.k8s.io/v1), never without audiences. */
export const reviewRequest = (
  token: string,
  audiences: readonly string[],
  deadlineMs: number,
): KubeRequest => ({
  method: 'POST',
  path: '/apis/authentication.k8s.io/v1/tokenreviews',
  body: {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token, audiences },
  },
  deadlineMs,
})

/** Reviews tokens and reports how long each review took. Throws a `Fault` without an answer. */
export function createTokenReview(options: TokenReviewOptions): ReviewToken {
  const { client, audiences, deadlineMs, clock, isAlive, onReviewed } = options
  /** When a live pod's token was first said to be invalidated, by the pod's uid. */
  const invalidatedAt: LRUCache<string, { readonly since: number }> = ttlCache({
    entriesMax: INVALIDATED_MAX,
    ttlMs: INVALIDATED_TTL_MS,
    clock,
  })
  const isDoubtful = (body: unknown, claims: Claims) =>
    readError(body) === 'invalidated' && isAlive(claims)
  /** A failed lookup looks like a deletion, of which the watch knows nothing: for a while a fault. */
  const assertDecided = (body: unknown, claims: Claims) => {
    const { podUid } = claims
    if (!isDoubtful(body, claims)) return void invalidatedAt.delete(podUid)
    const first = invalidatedAt.get(podUid) ?? { since: clock.monotonic() }
    if (!invalidatedAt.has(podUid)) invalidatedAt.set(podUid, first)
    if (clock.monotonic() - first.since < INVALIDATED_MS_MAX) throw undecided(body)
  }
  return async (token, claims) => {
    const startedAt = clock.monotonic()
    let outcome: ReviewOutcome = 'fault'
    const ask = () => client.request(reviewRequest(token, audiences, deadlineMs))
    try {
      let { body } = await ask()
      if (isDoubtful(body, claims)) {
        await new Promise<void>((resolve) => clock.after(SECOND_QUESTION_MS, resolve))
        body = (await ask()).body
      }
      assertDecided(body, claims)
      const verdict = readReview(body, claims, audiences)
      outcome = verdict.ok ? 'authenticated' : 'rejected'
      return verdict
    } finally {
      onReviewed(outcome, (clock.monotonic() - startedAt) / 1000)
    }
  }
}

/**
 * Reads from a 2xx answer whether the token of these claims is good. The answer must name one of
 * the audiences: otherwise a token for the API server itself would be accepted.
 */
function readReview(
  answer: unknown,
  claims: Claims,
  audiences: readonly string[],
): Verdict<Identity> {
  const status = member(answer, 'status')
  if (member(answer, 'kind') !== 'TokenReview' || status === undefined) {
    throw new Fault('review_unavailable', "The API server's answer is not a TokenReview.")
  }
  if (readError(answer) === 'undecided') throw undecided(answer)
  // A rejection leaves `authenticated` out; anything but `true` is a rejection.
  if (member(status, 'authenticated') !== true || member(status, 'error')) {
    return denied('review_rejected')
  }
  // An authenticator that does not know audiences answers with an empty list.
  const named = member(status, 'audiences')
  if (!Array.isArray(named) || !audiences.some((audience) => named.includes(audience))) {
    return denied('review_audience_mismatch')
  }
  return readIdentity(member(status, 'user'), claims)
}

function undecided(answer: unknown): ReviewUndecided {
  const words = quoteReviewError(member(member(answer, 'status'), 'error'))
  return new ReviewUndecided('review_unavailable', `The TokenReview says: ${words}.`)
}

/** What the error of an answer means; `undefined` where it has none. */
function readError(answer: unknown): ReviewError | undefined {
  const error = member(member(answer, 'status'), 'error')
  return error === undefined || error === '' ? undefined : judgeReviewError(error)
}

/** `user.uid` is the ServiceAccount's, the same for all its pods: only `extra` names the pod. */
function readIdentity(user: unknown, claims: Claims): Verdict<Identity> {
  const extra = member(user, 'extra')
  const nodeName = single(extra, 'node-name')
  const credentialId = single(extra, 'credential-id')
  const expectedId =
    claims.tokenId === undefined ? undefined : `${CREDENTIAL_ID_PREFIX}${claims.tokenId}`
  const agrees =
    member(user, 'username') === userNameOf(claims) &&
    single(extra, 'pod-name') === claims.podName &&
    single(extra, 'pod-uid') === claims.podUid &&
    (nodeName === undefined || nodeName === claims.nodeName) &&
    (credentialId === undefined || credentialId === expectedId)
  if (!agrees) return denied('review_identity_mismatch')
  return granted({
    ...identityOf(claims),
    nodeName,
    credentialId: credentialId === undefined ? undefined : claims.tokenId,
  })
}

/**
 * The single value of an `extra` field: `undefined` if absent, `null` if it is not exactly one
 * string.
 */
function single(extra: unknown, name: string): string | null | undefined {
  const values = member(extra, `${EXTRA}${name}`)
  if (values === undefined) return undefined
  if (!Array.isArray(values) || values.length !== 1) return null
  const value: unknown = values[0]
  return typeof value === 'string' ? value : null
}

function member(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
  return (value as Record<string, unknown>)[name]
}
