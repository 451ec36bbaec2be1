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

/** Keys, and nobody who says what the issuer is. */
function judgeUnknownIssuer(issuers: readonly string[] | undefined, fault: unknown): Finding {
  if (issuers !== undefined)
    return ok('signing-keys', `fetched; accepted from ${issuers.join(', ')}`)
  if (fault !== undefined) {
    const what = `fetched; the issuer could not be asked for, so that none is checked: ${messageOf(fault)}`
    return warn('signing-keys', what, 'Try again, or set kubernetes.issuers.')
  }
  const what = 'fetched; the cluster does not say who its issuer is, so that none is checked'
  return warn('signing-keys', what, `Set kubernetes.issuers. ${SET_ISSUER}`)
}

export async function examineKeys(check: KeysCheck): Promise<readonly Finding[]> {
  const { client, config, clock, deadlineMs, token, ownToken } = check
  const { issuers } = config.kubernetes
  let fault: unknown
  let issuerFault: unknown
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
    onIssuerAsked: (error) => (issuerFault = error),
    onIssuerChanged: () => {},
    onReviewOnly: () => {},
  })
  await jwks.load()
  const { ageMs, isReviewOnly } = jwks
  if (isReviewOnly) {
    const what = `${messageOf(fault)} Every token is proven by a TokenReview alone`
    return [warn('signing-keys', what, `${BIND_DISCOVERY} ${SET_ISSUER}`)]
  }
  if (ageMs === undefined) {
    return [fail('signing-keys', messageOf(fault), remedyFor(fault, BIND_DISCOVERY))]
  }
  // Where issuers are configured the sidecar does without: an answer only helps to find a misspelt one.
  const { issuer } = jwks
  if (issuer === undefined) return [judgeUnknownIssuer(issuers, issuerFault)]
  const objection = findIssuerObjection(issuer, issuers)
  if (objection !== undefined) {
    return [fail('signing-keys', objection, 'Add it there, or remove kubernetes.issuers.')]
  }
  const mismatch = ownToken?.issuer === issuer ? await findMismatch(token, jwks) : undefined
  if (mismatch !== undefined) return [mismatch]
  return [ok('signing-keys', `fetched; the cluster issues tokens as ${issuer}`)]
}

/** The sidecar's own token is signed with the same keys as the workers' tokens. */
async function findMismatch(token: string, jwks: Jwks): Promise<Finding | undefined> {
  const verdict = await verifySignature(token, jwks)
  if (verdict.ok) return undefined
  const what = `the sidecar's own token is not signed with any of them (${verdict.code})`
  const remedy = 'Check that kubernetes.apiServer and the token belong to the same cluster.'
  return fail('signing-keys', what, remedy)
}
