/** The precheck: everything about a token that can be decided without asking the API server. */

import type { Clock } from '../clock.ts'
import { denied, type Verdict } from '../denial.ts'
import type { Claims } from '../identity.ts'
import type { TokenBuckets } from '../token-buckets.ts'
import { acceptToken } from './credential.ts'
import { readClaims, type ClaimRules } from './claims.ts'
import { verifySignature, type KeySource, type SignatureState } from './signature.ts'
import { VerifiedSignatures } from './verified-signatures.ts'

export type PrecheckOptions = {
  /** As configured now. */
  readonly rules: () => ClaimRules
  readonly keys: KeySource
  readonly clock: Clock
  /** Admits tokens whose signature cannot be checked to a TokenReview: per address, and in all. */
  readonly unverifiedBudget: { readonly perAddress: TokenBuckets; readonly inAll: TokenBuckets }
  /** Tokens at most whose signature is remembered to hold. */
  readonly signaturesMax: number
}

export type Precheck = ReturnType<typeof createPrecheck>

/** Builds the two stages of the precheck: `read` is synchronous and free, `verify` costs a signature. */
export function createPrecheck(options: PrecheckOptions) {
  const { keys, clock, unverifiedBudget } = options
  const known = new VerifiedSignatures(options.signaturesMax)
  return {
    /** Shape and claims. They may refuse, and never admit. */
    read(token: string): Verdict<Claims> {
      const accepted = acceptToken(token)
      return accepted.ok ? readClaims(token, options.rules(), clock.now()) : accepted
    },

    /** Signature. Without any keys a few tokens may go on to the TokenReview unproven. */
    async verify(token: string, address: string): Promise<Verdict<SignatureState>> {
      const signature = await verifySignature(token, keys, known)
      if (!signature.ok || signature.value === 'verified') return signature
      const affordable =
        unverifiedBudget.perAddress.take(address) && unverifiedBudget.inAll.take('')
      return affordable ? signature : denied('keys_unavailable')
    },
  }
}
