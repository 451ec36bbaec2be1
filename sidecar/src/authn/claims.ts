/** The first half of the precheck: the claims of an unverified token, which can only refuse it. */

import * as z from 'zod'
import { decodeBase64url } from '../lib/base64url.ts'
import { denied, granted, type Code, type Denied, type Verdict } from '../denial.ts'
import { userNameOf, type Claimed, type Claims } from '../identity.ts'
import { parseStrictJson } from './strict-json.ts'

export type ClaimRules = {
  /** Accepted issuers; `undefined` while the cluster's own is not known yet. */
  readonly issuers: () => readonly string[] | undefined
  /** Accepted audiences; the token must have at least one of them. */
  readonly audiences: readonly string[]
  /** The longest accepted `exp - iat`, in milliseconds. */
  readonly maxTokenLifetimeMs: number
  /** How long after its `exp` a token may still pass this stage, in milliseconds. Default 0. */
  readonly expiryGraceMs?: number
  readonly isListed: (namespace: string, serviceAccount: string) => boolean
}

/**
 * The algorithms Kubernetes signs with; `none` and every HMAC are left out on purpose (RFC 8725
 * §3.1).
 */
export const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512']

export const NBF_SKEW_S = 60
const KEY_ID_LENGTH_MAX = 256
/** Header fields that would let the token choose its own key or rules (RFC 8725 §3.10). */
const FORBIDDEN_FIELDS = ['crit', 'jku', 'x5u', 'jwk', 'x5c', 'b64', 'zip']

const label = z.string().regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/)
const subdomain = z
  .string()
  .max(253, { abort: true })
  .regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/)
const uid = z.string().regex(/^[A-Za-z0-9-]{1,64}$/)
const time = z.number().nonnegative()
/** Checked in one step: an issue for each member of a long list would cost milliseconds. */
const audiences = z.custom<string | readonly string[]>(
  (value) => isString(value) || (Array.isArray(value) && value.every(isString)),
)

/** The claims of a ServiceAccount token, as measured on Kubernetes 1.35; the grammars are exact. */
const CLAIMS = z.object({
  iss: z.string(),
  aud: audiences,
  sub: z.string(),
  exp: time,
  iat: time.optional(),
  nbf: time.optional(),
  jti: z
    .string()
    .regex(/^[A-Za-z0-9._:-]{1,128}$/)
    .optional(),
  'kubernetes.io': z.object({
    namespace: label,
    serviceaccount: z.object({ name: subdomain, uid }),
    pod: z.object({ name: subdomain, uid }).optional(),
    node: z.object({ name: subdomain, uid: z.string().nullish() }).optional(),
    // A token has one binding: to a pod, or to a Secret.
    secret: z.object({ name: subdomain, uid }).nullish(),
    warnafter: z.number().nullish(),
  }),
})

function isString(value: unknown): value is string {
  return typeof value === 'string'
}

/** A refused token still says whose it claims to be: for the audit line, never for a decision. */
export type ClaimsVerdict =
  | Extract<Verdict<Claims>, { ok: true }>
  | (Denied & { readonly claimed?: Claimed & { readonly issuer?: string } })

/** Reads a token's claims and refuses what no signature could make acceptable. */
export function readClaims(token: string, rules: ClaimRules, nowMs: number): ClaimsVerdict {
  const claims = parseToken(token)
  return claims.ok ? judgeClaims(claims.value, rules, nowMs) : claims
}

/** Judges claims that were read earlier by the rules and the time as they are now. */
export function judgeClaims(claims: Claims, rules: ClaimRules, nowMs: number): ClaimsVerdict {
  const objection = findObjection(claims, rules, nowMs / 1000)
  return objection === undefined ? granted(claims) : { ...denied(objection), claimed: claims }
}

/** The result depends on the token alone, not on the time or the rules. */
function parseToken(token: string): ClaimsVerdict {
  // A JWE has five parts.
  const parts = token.split('.', 4)
  const [header, payload, signature] = parts.map(decodeBase64url)
  if (parts.length !== 3 || signature === undefined) return denied('token_malformed')
  const objection = findHeaderObjection(readObject(header))
  return objection === undefined ? parseClaims(readObject(payload)) : denied(objection)
}

function readObject(part: Buffer | undefined): object | undefined {
  const value = part === undefined ? undefined : parseStrictJson(part)
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined
}

function findHeaderObjection(header: object | undefined): Code | undefined {
  if (header === undefined) return 'token_malformed'
  const { alg, kid } = header as Readonly<Record<string, unknown>>
  if (typeof alg !== 'string' || !ALGORITHMS.includes(alg)) return 'algorithm_not_allowed'
  if (FORBIDDEN_FIELDS.some((field) => field in header)) return 'algorithm_not_allowed'
  if (kid !== undefined && (typeof kid !== 'string' || kid.length > KEY_ID_LENGTH_MAX)) {
    return 'token_malformed'
  }
  return undefined
}

function findObjection(claims: Claims, rules: ClaimRules, nowS: number): Code | undefined {
  const issuers = rules.issuers()
  if (issuers !== undefined && !issuers.includes(claims.issuer)) return 'issuer_not_allowed'
  if (!claims.audiences.some((audience) => rules.audiences.includes(audience))) {
    return 'audience_mismatch'
  }
  // The API server would accept 60 s more; here a token ends exactly at its `exp`.
  if (nowS >= claims.expiresAt + (rules.expiryGraceMs ?? 0) / 1000) return 'token_expired'
  if (Math.max(claims.issuedAt, claims.notBefore ?? 0) > nowS + NBF_SKEW_S) {
    return 'token_not_yet_valid'
  }
  if ((claims.expiresAt - claims.issuedAt) * 1000 > rules.maxTokenLifetimeMs) {
    return 'token_lifetime_exceeded'
  }
  if (!rules.isListed(claims.namespace, claims.serviceAccount)) return 'identity_not_allowed'
  return undefined
}

/**
 * The token of a Secret of type `kubernetes.io/service-account-token`. It has neither an audience nor
 * an end, and belongs to every pod that mounts the Secret.
 */
const LEGACY_CLAIMS = z.object({
  sub: z.string(),
  'kubernetes.io/serviceaccount/namespace': label,
  'kubernetes.io/serviceaccount/service-account.name': subdomain,
})

function judgeLegacy(payload: object | undefined): ClaimsVerdict {
  const legacy = LEGACY_CLAIMS.safeParse(payload).data
  if (legacy === undefined) return denied('token_malformed')
  const account = {
    namespace: legacy['kubernetes.io/serviceaccount/namespace'],
    serviceAccount: legacy['kubernetes.io/serviceaccount/service-account.name'],
  }
  if (legacy.sub !== userNameOf(account)) return denied('token_malformed')
  return { ...denied('token_not_pod_bound'), claimed: account }
}

function parseClaims(payload: object | undefined): ClaimsVerdict {
  const parsed = CLAIMS.safeParse(payload)
  if (!parsed.success) return judgeLegacy(payload)
  const { iss, aud, exp, iat, nbf, jti, sub, 'kubernetes.io': bound } = parsed.data
  const issuedAt = iat ?? nbf
  if (issuedAt === undefined) return denied('token_malformed')
  const { namespace, serviceaccount, pod, node, secret } = bound
  const account = { namespace, serviceAccount: serviceaccount.name }
  if (sub !== userNameOf(account)) return denied('token_malformed')
  const isBoundToSecret = secret !== undefined && secret !== null
  if (pod === undefined || isBoundToSecret) {
    return { ...denied('token_not_pod_bound'), claimed: account }
  }
  return granted({
    issuer: iss,
    audiences: typeof aud === 'string' ? [aud] : aud,
    issuedAt,
    notBefore: nbf,
    expiresAt: exp,
    tokenId: jti,
    ...account,
    serviceAccountUid: serviceaccount.uid,
    podName: pod.name,
    podUid: pod.uid,
    nodeName: node?.name,
  })
}
