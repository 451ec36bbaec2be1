/** Whether the cluster's signing keys can be fetched, and tokens are signed with them. */

import { messageOf } from '../lib/errors.ts'
import { findIssuerObjection } from '../authn/issuers.ts'
import { verifySignature } from '../authn/signature.ts'
import type { Clock } from '../lib/clock.ts'
import { Jwks } from '../kube/jwks.ts'
import { fail, ok, remedyFor, warn, type ClusterCheck, type Finding } from './finding.ts'
import type { OwnToken } from './own-token.ts'

type KeysCheck = ClusterCheck & {
  readonly clock: Clock
  readonly token: string
  readonly ownToken: OwnToken | undefined
}

const BIND_DISCOVERY =
  'Bind the ClusterRole system:service-account-issuer-discovery ' +
  "to the sidecar's ServiceAccount."
const SET_ISSUER =
  'If the API server answers 404, its --service-account-issuer is not an https URL.'

/** Keys without a discovery document. */
function judgeUnknownIssuer(issuers: readonly string[] | undefined): Finding {
  if (issuers !== undefined)
    return ok('signing-keys', `fetched; accepted from ${issuers.join(', ')}`)
  const what = 'fetched; the cluster does not say who its issuer is, so that none is checked'
  return warn('signing-keys', what, `Set kubernetes.issuers. ${SET_ISSUER}`)
}

export async function examineKeys(check: KeysCheck): Promise<readonly Finding[]> {
  const { client, config, clock, deadlineMs, token, ownToken } = check
  let fault: unknown
  const jwks = new Jwks({
    client,
    clock,
    random: () => 0,
    isIssuerConfigured: false,
    cooldownMs: 0,
    refreshMs: Infinity,
    staleAfterMs: Infinity,
    deadlineMs,
    onFetched: () => {},
    onFailed: (error) => (fault = error),
    onIssuerChanged: () => {},
    onReviewOnly: () => {},
  })
  await jwks.refresh()
  const { issuer, ageMs, isReviewOnly } = jwks
  if (isReviewOnly) {
    const what = `${messageOf(fault)} Every token is proven by a TokenReview alone`
    return [warn('signing-keys', what, `${BIND_DISCOVERY} ${SET_ISSUER}`)]
  }
  if (ageMs === undefined) {
    return [fail('signing-keys', messageOf(fault), remedyFor(fault, BIND_DISCOVERY))]
  }
  if (issuer === undefined) return [judgeUnknownIssuer(config.kubernetes.issuers)]
  const objection = findIssuerObjection(issuer, config.kubernetes.issuers)
  if (objection !== undefined) {
    return [fail('signing-keys', objection, 'Add it there, or remove kubernetes.issuers.')]
  }
  // The sidecar's own token is signed with the same keys as the workers' tokens.
  if (ownToken?.issuer === issuer) {
    const verdict = await verifySignature(token, jwks)
    if (!verdict.ok) {
      const what = `the sidecar's own token is not signed with any of them (${verdict.code})`
      const remedy = 'Check that kubernetes.apiServer and the token belong to the same cluster.'
      return [fail('signing-keys', what, remedy)]
    }
  }
  return [ok('signing-keys', `fetched; the cluster issues tokens as ${issuer}`)]
}
