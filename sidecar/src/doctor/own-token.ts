/** The sidecar's own token: which account it names, and whether the kubelet renews it. */

import { decodeJwt, type JWTPayload } from 'jose'
import { ok, warn, type Finding } from './finding.ts'

/** Times are seconds since the epoch. */
export type OwnToken = {
  readonly issuer: string
  readonly subject: string
  readonly issuedAt: number
  /** When the kubelet must have renewed it at the latest. */
  readonly dueAt: number
}

/** The kubelet renews a token at 80 % of its lifetime: past this share it has failed to. */
const RENEWED_BY = 0.9

/** `undefined` for a token whose claims cannot be read, such as an opaque one. */
export function readOwnToken(token: string): OwnToken | undefined {
  let claims: JWTPayload
  try {
    claims = decodeJwt(token)
  } catch {
    return undefined
  }
  const { iss, sub, exp, iat } = claims
  if (iss === undefined || sub === undefined || exp === undefined || iat === undefined) {
    return undefined
  }
  // If the API server extends a token's lifetime, it also says when the token is due for renewal.
  const bound = claims['kubernetes.io'] as { warnafter?: unknown } | undefined
  const warnAfter = typeof bound?.warnafter === 'number' ? bound.warnafter : exp
  return { issuer: iss, subject: sub, issuedAt: iat, dueAt: Math.min(exp, warnAfter) }
}

export function examineOwnToken(token: OwnToken | undefined, nowMs: number): readonly Finding[] {
  if (token === undefined) return [ok('own-token', 'opaque: its expiry cannot be checked')]
  const { subject, issuedAt, dueAt } = token
  const leftS = Math.round(dueAt - nowMs / 1000)
  const age = (nowMs / 1000 - issuedAt) / (dueAt - issuedAt)
  if (age < RENEWED_BY) return [ok('own-token', `${subject}, valid for another ${leftS} s`)]
  const what =
    leftS > 0
      ? `it expires in ${leftS} s and should have been renewed by now`
      : `it should have been renewed ${-leftS} s ago`
  const remedy = 'Mount it as a projected volume, not with subPath: a subPath is never renewed.'
  return [warn('own-token', what, remedy)]
}
