/** The precheck: everything about a token that can be decided without the API server. */

import { addressGroup } from '../lib/address-group.ts'
import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import type { Claims } from '../identity.ts'
import type { IssuerRenewal } from '../kube/jwks.ts'
import type { TokenBuckets } from '../lib/token-buckets.ts'
import { acceptToken } from './credential.ts'
import { judgeClaims, readClaims, type ClaimRules, type ClaimsVerdict } from './claims.ts'
import { verifySignature, type KeySource, type SignatureState } from './signature.ts'
import { VerifiedTokens } from './verified-tokens.ts'

export type PrecheckOptions = {
  /** As configured now. */
  readonly rules: () => ClaimRules
  readonly keys: KeySource & {
    /** Whether the cluster serves no keys, so that every token is unverified. */
    readonly isReviewOnly?: boolean
    /** Asks whether the cluster has this issuer now. */
    readonly renewIssuer?: (issuer: string) => Promise<IssuerRenewal>
  }
  readonly clock: Clock
  /**
   * How many tokens with an unchecked signature may go to a TokenReview: per address, and in all.
   */
  readonly unverifiedBudget: {
    readonly perAddress: TokenBuckets
    readonly inAll: TokenBuckets
    /** In place of `inAll` where the cluster serves no keys: only for pods that the watch shows. */
    readonly seen: TokenBuckets
  }
  /** The key an address counts under. By default an IPv6 network counts as one. */
  readonly groupOf?: (address: string) => string
  /**
   * Why the watch does not show the pod of these unproven claims alive at this address; `undefined`
   * if it does. This can only refuse.
   */
  readonly findUnseen: (claims: Claims, address: string) => Promise<Code | undefined>
}

const UNRENEWED = {
  renewed: undefined,
  unchanged: 'issuer_not_allowed',
  cooldown: 'keys_cooldown',
  failed: 'keys_unavailable',
} as const satisfies Record<IssuerRenewal, Code | undefined>

/** Tokens that are remembered, so that they need not be read and verified again each time. */
const VERIFIED_MAX = 20_000

export type Precheck = ReturnType<typeof createPrecheck>

/**
 * Builds the two stages of the precheck: `read` is synchronous and cheap, `verify` checks a
 * signature.
 */
export function createPrecheck(options: PrecheckOptions) {
  const { keys, clock, unverifiedBudget, groupOf = addressGroup } = options
  const verified = new VerifiedTokens(VERIFIED_MAX)
  const isAffordable = (address: string, inAll: TokenBuckets): Verdict<SignatureState> =>
    unverifiedBudget.perAddress.take(groupOf(address)) && inAll.take('')
      ? granted('unavailable')
      : denied('keys_unavailable')
  return {
    /** Shape and claims. Can only refuse, never admit. */
    read(token: string): ClaimsVerdict {
      const accepted = acceptToken(token)
      if (!accepted.ok) return accepted
      const known = verified.find(token)
      return known === undefined
        ? readClaims(token, options.rules(), clock.now())
        : judgeClaims(known, options.rules(), clock.now())
    },

    /**
     * Asks for the cluster's issuer again. Gives the code that refuses a token of `issuer`; `undefined`
     * where it has to be read again. A question that fails, or was asked just now, proves nothing.
     */
    renewIssuer: async (issuer: string): Promise<Code | undefined> =>
      UNRENEWED[(await keys.renewIssuer?.(issuer)) ?? 'unchanged'],

    /** The same for claims that were read before: the rules and the time may have changed. */
    judge(claims: Claims): ClaimsVerdict {
      return judgeClaims(claims, options.rules(), clock.now())
    },

    /**
     * Checks the signature of the token that `claims` were read from. While there are no keys, a
     * few tokens may go on to the TokenReview unverified. Throws a `Fault`.
     */
    async verify(
      token: string,
      address: string,
      claims?: Claims,
    ): Promise<Verdict<SignatureState>> {
      const current = keys.current()
      if (claims !== undefined && verified.isVerified(claims, current)) return granted('verified')
      const signature = await verifySignature(token, keys)
      if (!signature.ok) return signature
      if (signature.value === 'verified') {
        // Only if the keys did not change meanwhile is it certain which keys verified the token.
        const isKept = current !== undefined && current === keys.current()
        if (isKept && claims !== undefined) verified.keep(token, claims, current)
        return signature
      }
      if (keys.isReviewOnly !== true || claims === undefined) {
        return isAffordable(address, unverifiedBudget.inAll)
      }
      const unseen = await options.findUnseen(claims, address)
      return unseen === undefined ? isAffordable(address, unverifiedBudget.seen) : denied(unseen)
    },
  }
}
