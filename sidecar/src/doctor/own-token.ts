/** The sidecar's own token: who it says we are, and whether it is being renewed. */

import { decodeJwt, type JWTPayload } from 'jose'
import { ok, warn, type Finding } from './finding.ts'

/** Times are seconds since the epoch. */
export type OwnToken = {
  readonly issuer: string
  readonly subject: string
  readonly issuedAt: number
  /** By when the kubelet has to have renewed it. */
  readonly dueAt: number
}

/** The kubelet renews a token at 80 % of its life: what is older than this it has missed. */
const RENEWED_BY = 0.9

/** `undefined` for a token whose claims cannot be read, as of a cluster's own kind. */
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
  // Where the API server stretches a token's life, it says when it should have been renewed.
  const bound = claims['kubernetes.io'] as { warnafter?: unknown } | undefined
  const warnAfter = typeof bound?.warnafter === 'number' ? bound.warnafter : exp
  return { issuer: iss, subject: sub, issuedAt: iat, dueAt: Math.min(exp, warnAfter) }
}

export function examineOwnToken(token: OwnToken | undefined, nowMs: number): readonly Finding[] {
  if (token === undefined) return [ok('own-token', 'of a kind that does not tell when it ends')]
  const { subject, issuedAt, dueAt } = token
  const leftS = Math.round(dueAt - nowMs / 1000)
  const age = (nowMs / 1000 - issuedAt) / (dueAt - issuedAt)
  if (age < RENEWED_BY) return [ok('own-token', `${subject}, good for another ${leftS} s`)]
  const what =
    leftS > 0
      ? `it ends in ${leftS} s and should have been renewed by now`
      : `it should have been renewed ${-leftS} s ago`
  const mend = 'Mount it as a projected volume, not by subPath: such a file is never renewed.'
  return [warn('own-token', what, mend)]
}
