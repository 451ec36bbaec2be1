/** Whether the API server reviews tokens: asked for the sidecar's own token. */

import { messageOf } from '../lib/errors.ts'
import { judgeReviewError, quoteReviewError } from '../authn/review-error.ts'
import { reviewRequest } from '../authn/token-review.ts'
import { ALLOW_REVIEWS, fail, ok, remedyFor, type ClusterCheck, type Finding } from './finding.ts'

type ReviewsCheck = ClusterCheck & { readonly token: string }

/** Asks as for a worker. An answer that our token has another audience is also an answer. */
export async function examineReviews(check: ReviewsCheck): Promise<readonly Finding[]> {
  const { client, config, deadlineMs, token } = check
  const { audiences } = config.k8sTrust
  try {
    const answer = await client.request(reviewRequest(token, audiences, deadlineMs))
    const { kind, status } = (answer.body ?? {}) as Review
    if (kind !== 'TokenReview' || typeof status !== 'object' || status === null) {
      const remedy = 'Try again, then check for a proxy between this pod and the API server.'
      return [fail('reviews', 'the answer is not a TokenReview', remedy)]
    }
    if (isUndecided(status.error)) {
      const what = `the API server could not decide: ${quoteReviewError(status.error)}`
      return [fail('reviews', what, 'Check the API server: its etcd, and its webhooks.')]
    }
    if (status.authenticated !== true) return [ok('reviews', 'the API server reviews tokens')]
    const confirmed = Array.isArray(status.audiences) ? status.audiences : []
    if (audiences.some((audience) => confirmed.includes(audience))) {
      const what = "it would also accept the sidecar's own token as a worker's"
      return [ok('reviews', `the API server reviews tokens; ${what}`)]
    }
    const what = "the API server's authenticator ignores audiences: no worker can be admitted"
    const remedy = 'Use an authenticator that returns audiences in the TokenReview.'
    return [fail('reviews', what, remedy)]
  } catch (error) {
    return [fail('reviews', messageOf(error), remedyFor(error, ALLOW_REVIEWS))]
  }
}

/** Not even a token of our own that "has been invalidated" is: this process runs in its pod. */
const isUndecided = (error: unknown): boolean =>
  error !== undefined && error !== '' && judgeReviewError(error) !== 'refused'

type Review = {
  readonly kind?: unknown
  readonly status?: {
    readonly authenticated?: unknown
    readonly audiences?: unknown
    readonly error?: unknown
  } | null
}
