/** Five classes of tokens that nobody should be let in with, as many distinct ones as wanted. */

import type { Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { encodeToken, withBadSignature } from './kube-tokens.ts'

/** What each class is refused with. */
export const BAD_TOKENS = {
  'no JWT': 'token_malformed',
  'wrong issuer': 'issuer_not_allowed',
  'wrong audience': 'audience_mismatch',
  expired: 'token_expired',
  'bad signature': 'signature_invalid',
} as const satisfies Record<string, Code>

export type BadTokenClass = keyof typeof BAD_TOKENS

export const badTokenClasses = Object.keys(BAD_TOKENS) as readonly BadTokenClass[]

const NOISE = Buffer.alloc(256, 7)

/** The `n`th token of a class; all but the first are bent from `good`. */
export const badToken = (kind: BadTokenClass, n: number, good: string): string => {
  const [head = '', body = ''] = good.split('.')
  const bend = (changes: object) =>
    encodeToken(decode(head), { ...decode(body), jti: `flood-${n}`, ...changes }, () => NOISE)
  switch (kind) {
    case 'no JWT':
      return `garbage-${n}`
    case 'wrong issuer':
      return bend({ iss: 'https://another.example' })
    case 'wrong audience':
      return bend({ aud: ['another'] })
    case 'expired':
      return bend({ exp: 1 })
    case 'bad signature':
      return withBadSignature(good, n)
  }
}

const decode = (part: string): object =>
  JSON.parse(Buffer.from(part, 'base64url').toString()) as object
