/** TokenReview: asks the cluster about a token and believes only an answer that names this pod. */

import { denied, granted, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import type { Claims, Identity } from '../identity.ts'

/** Posts a TokenReview and returns the body of the API server's 2xx answer, or throws a `Fault`. */
export type PostReview = (body: object) => Promise<unknown>

const EXTRA = 'authentication.kubernetes.io/'
const CREDENTIAL_ID_PREFIX = 'JTI='

/**
 * Reviews `token` for `audiences` (authentication.k8s.io/v1). It is asked once and never without
 * audiences: the API server's own audience would then be accepted.
 */
export async function reviewToken(
  token: string,
  claims: Claims,
  audiences: readonly string[],
  post: PostReview,
): Promise<Verdict<Identity>> {
  const answer = await post({
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token, audiences },
  })
  const status = member(answer, 'status')
  if (member(answer, 'kind') !== 'TokenReview' || status === undefined) {
    throw new Fault('review_unavailable', "The API server's answer is not a TokenReview.")
  }
  // A refusal leaves `authenticated` out; anything but a plain true is one.
  if (member(status, 'authenticated') !== true || member(status, 'error')) {
    return denied('review_rejected')
  }
  // An authenticator that knows nothing of audiences answers with an empty list.
  const vouched = member(status, 'audiences')
  if (!Array.isArray(vouched) || !audiences.some((audience) => vouched.includes(audience))) {
    return denied('review_audience_mismatch')
  }
  return readIdentity(member(status, 'user'), claims)
}

/** `user.uid` is the ServiceAccount's, the same for all its pods: the pod is named in `extra` alone. */
function readIdentity(user: unknown, claims: Claims): Verdict<Identity> {
  const extra = member(user, 'extra')
  const nodeName = single(extra, 'node-name')
  const credentialId = single(extra, 'credential-id')
  const expectedId =
    claims.tokenId === undefined ? undefined : `${CREDENTIAL_ID_PREFIX}${claims.tokenId}`
  const agrees =
    member(user, 'username') ===
      `system:serviceaccount:${claims.namespace}:${claims.serviceAccount}` &&
    single(extra, 'pod-name') === claims.podName &&
    single(extra, 'pod-uid') === claims.podUid &&
    (nodeName === undefined || nodeName === claims.nodeName) &&
    (credentialId === undefined || credentialId === expectedId)
  if (!agrees) return denied('review_identity_mismatch')
  return granted({
    namespace: claims.namespace,
    serviceAccount: claims.serviceAccount,
    podName: claims.podName,
    podUid: claims.podUid,
    nodeName,
    credentialId: credentialId === undefined ? undefined : claims.tokenId,
    expiresAt: claims.expiresAt,
  })
}

/** The one value of an `extra` field: `undefined` when it is absent, `null` when it is not one string. */
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
