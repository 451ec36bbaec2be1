/** TokenReview as kube-apiserver v1.35 decides it, word for word. */

import { verifySignature } from './kube-tokens.ts'
import type { KeyRing, SigningKey } from './kube-tokens.ts'
import type { KubeStore } from './kube-store.ts'

type ReviewUser = {
  readonly username: string
  readonly uid: string
  readonly groups: readonly string[]
  readonly extra: Readonly<Record<string, readonly string[]>>
}

/** On refusal `authenticated` is absent, not false, and `user` is empty. */
export type ReviewStatus =
  | {
      readonly authenticated: true
      readonly user: ReviewUser
      readonly audiences: readonly string[]
    }
  | { readonly user: Readonly<Record<string, never>>; readonly error: string }

export type Reviewing = {
  readonly issuer: string
  /** Others whose tokens are accepted, too. */
  readonly otherIssuers?: readonly string[]
  /** What an empty `spec.audiences` means. */
  readonly audiences: readonly string[]
  readonly keys: KeyRing
  readonly store: KubeStore
  readonly nowMs: () => number
}

/** The API server's grace on `exp`, `nbf`, `iat` and on the deletion of a bound pod. */
const LEEWAY_MS = 60_000

type Reference = { readonly name: string; readonly uid: string }
type TokenClaims = {
  readonly iss?: string
  readonly aud?: string | readonly string[]
  readonly exp?: number
  readonly nbf?: number
  readonly iat?: number
  readonly jti?: string
  readonly 'kubernetes.io'?: {
    readonly namespace?: string
    readonly serviceaccount?: Reference
    readonly pod?: Reference
    readonly node?: Reference
  }
}

/** Reviews one token; the order of the questions is the real one's, as it decides which error shows. */
export const reviewToken = (
  reviewing: Reviewing,
  token: string,
  requested: readonly string[],
): ReviewStatus => {
  const parsed = parseToken(token)
  const issuers = [reviewing.issuer, ...(reviewing.otherIssuers ?? [])]
  if (parsed === undefined || !issuers.includes(parsed.claims.iss ?? '')) {
    return { user: {}, error: 'invalid bearer token' }
  }
  const { claims } = parsed
  const wanted = requested.length === 0 ? reviewing.audiences : requested
  const own = claims.aud === undefined ? reviewing.audiences : [claims.aud].flat()
  const audiences = own.filter((audience) => wanted.includes(audience))
  const error =
    signatureError(reviewing.keys, parsed) ??
    (audiences.length === 0
      ? `token audiences ${quoted(own)} is invalid for the target audiences ${quoted(wanted)}`
      : undefined) ??
    timeError(claims, reviewing.nowMs()) ??
    bindingError(claims, reviewing)
  if (error !== undefined) return { user: {}, error: `[invalid bearer token, ${error}]` }
  return { authenticated: true, user: userOf(claims), audiences }
}

type ParsedToken = {
  readonly kid: string | undefined
  readonly alg: unknown
  readonly claims: TokenClaims
  readonly input: string
  readonly signature: Buffer
}

const parseToken = (token: string): ParsedToken | undefined => {
  const [head, body, signature, ...rest] = token.split('.')
  if (!head || !body || signature === undefined || rest.length > 0) return undefined
  try {
    const header = JSON.parse(Buffer.from(head, 'base64url').toString()) as Record<string, unknown>
    const claims = JSON.parse(Buffer.from(body, 'base64url').toString()) as TokenClaims
    return {
      kid: typeof header['kid'] === 'string' && header['kid'] !== '' ? header['kid'] : undefined,
      alg: header['alg'],
      claims,
      input: `${head}.${body}`,
      signature: Buffer.from(signature, 'base64url'),
    }
  } catch {
    return undefined
  }
}

const signatureError = (keys: KeyRing, token: ParsedToken): string | undefined => {
  const candidates = keys.accepted.filter((key) => token.kid === undefined || key.kid === token.kid)
  if (candidates.length === 0) return 'invalid signature, no keys found'
  const isSignedBy = (key: SigningKey) =>
    key.alg === token.alg && verifySignature(key, token.input, token.signature)
  if (candidates.some(isSignedBy)) return undefined
  return 'go-jose/go-jose: error in cryptographic primitive'
}

const timeError = (claims: TokenClaims, nowMs: number): string | undefined => {
  const { nbf, exp, iat } = claims
  if (nbf !== undefined && nowMs + LEEWAY_MS < nbf * 1000) {
    return 'service account token is not valid yet'
  }
  if (exp !== undefined && nowMs - LEEWAY_MS > exp * 1000) {
    return 'service account token has expired'
  }
  if (iat !== undefined && nowMs + LEEWAY_MS < iat * 1000) {
    return 'service account token is issued in the future'
  }
  return undefined
}

const bindingError = (claims: TokenClaims, reviewing: Reviewing): string | undefined => {
  const { namespace = '', serviceaccount, pod } = claims['kubernetes.io'] ?? {}
  const account = reviewing.store.serviceAccount(namespace, serviceaccount?.name ?? '')
  if (account === undefined) return `serviceaccounts "${serviceaccount?.name ?? ''}" not found`
  if (account.metadata.uid !== serviceaccount?.uid) {
    return `service account UID (${account.metadata.uid}) does not match claim (${serviceaccount?.uid ?? ''})`
  }
  if (pod === undefined) return undefined
  const found = reviewing.store.pod(namespace, pod.name)
  if (found === undefined) return 'service account token has been invalidated'
  const { uid, deletionTimestamp } = found.metadata
  if (uid !== pod.uid) {
    return `pod UID (${uid}) does not match service account pod ref claim (${pod.uid})`
  }
  if (deletionTimestamp === undefined) return undefined
  // So a terminating pod's token stays good for a minute past its grace: only a watch is faster.
  const isOver = Date.parse(deletionTimestamp) < reviewing.nowMs() - LEEWAY_MS
  return isOver ? 'service account token has been invalidated' : undefined
}

const userOf = (claims: TokenClaims): ReviewUser => {
  const { namespace = '', serviceaccount, pod, node } = claims['kubernetes.io'] ?? {}
  const extra: Record<string, readonly string[]> = {}
  const add = (name: string, value: string | undefined) => {
    if (value) extra[`authentication.kubernetes.io/${name}`] = [value]
  }
  add('credential-id', claims.jti === undefined ? undefined : `JTI=${claims.jti}`)
  add('node-name', node?.name)
  add('node-uid', node?.uid)
  add('pod-name', pod?.name)
  add('pod-uid', pod?.uid)
  return {
    username: `system:serviceaccount:${namespace}:${serviceaccount?.name ?? ''}`,
    uid: serviceaccount?.uid ?? '',
    groups: [
      'system:serviceaccounts',
      `system:serviceaccounts:${namespace}`,
      'system:authenticated',
    ],
    extra,
  }
}

const quoted = (values: readonly string[]): string =>
  `[${values.map((value) => JSON.stringify(value)).join(' ')}]`
