/** Whether the API server really reviews tokens: by our own, which is at hand. */

import { reviewRequest } from '../authn/token-review.ts'
import type { Config } from '../config/schema.ts'
import type { KubeClient } from '../kube/client.ts'
import { mendOf, reasonOf } from './explain.ts'
import { fail, ok, type Finding } from './finding.ts'

type Asking = {
  readonly client: KubeClient
  readonly config: Config
  readonly deadlineMs: number
  readonly token: string
}

/** Asked as for a worker. That our token is for another audience is an answer as good as any. */
export async function examineReviews(asking: Asking): Promise<readonly Finding[]> {
  const { client, config, deadlineMs, token } = asking
  const { audiences } = config.k8sTrust
  try {
    const answer = await client.request(reviewRequest(token, audiences, deadlineMs))
    const { kind, status } = (answer.body ?? {}) as Review
    if (kind !== 'TokenReview' || typeof status !== 'object' || status === null) {
      const mend = 'Ask again; else see what stands between this pod and the API server.'
      return [fail('reviews', 'what came back is no TokenReview', mend)]
    }
    if (status.authenticated !== true) return [ok('reviews', 'the API server reviews tokens')]
    const vouched = Array.isArray(status.audiences) ? status.audiences : []
    if (audiences.some((audience) => vouched.includes(audience))) {
      return [ok('reviews', "the API server reviews tokens; ours would pass for a worker's")]
    }
    const what = "the API server's authenticator knows nothing of audiences: no worker can enter"
    return [fail('reviews', what, 'Use one that does; a TokenReview has to tell its audiences.')]
  } catch (error) {
    const refusal = 'Let our ServiceAccount create tokenreviews: ClusterRole system:auth-delegator.'
    return [fail('reviews', reasonOf(error), mendOf(error, refusal))]
  }
}

type Review = {
  readonly kind?: unknown
  readonly status?: { readonly authenticated?: unknown; readonly audiences?: unknown } | null
}
