/** The token authenticator: the cluster, the cache or our own check decides on a token. */

import type { LRUCache } from 'lru-cache'
import { ttlCache } from '../lib/bounded-lru.ts'
import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import { identityOf, type Claims, type Identity } from '../identity.ts'
import type { PodListener } from '../kube/pod-watch.ts'
import type { WatchedPod } from '../kube/pod.ts'
import type { SignatureState } from './signature.ts'
import { ReviewUndecided } from './token-review.ts'
import type { VerdictCache } from './verdict-cache.ts'

export type TokenAuthenticatorOptions = {
  readonly verdicts: Pick<VerdictCache, 'find' | 'invalidatePod'>
  readonly clock: Clock
  readonly rules: () => AuthenticationRules
  /** Milliseconds for which the watch of the claimed pod cannot be trusted; 0 while it can. */
  readonly watchStaleMs: (claims: Claims) => number
  /** Whether the cluster is known to have the issuer of these claims, or to name none. */
  readonly isIssuerKnown: (claims: Claims) => boolean
  /** The most tokens remembered beyond their `exp`. */
  readonly entriesMax: number
}

export type AuthenticationRules = {
  /**
   * How long after its `exp` a previously reviewed token still counts, in milliseconds; 0 for
   * never.
   */
  readonly expiredTokenReconnectGraceMs: number
  readonly onApiOutage: 'refuse' | 'verify-locally'
  /** The longest time without a watch for which a local verdict counts, in milliseconds. */
  readonly maxWatchStalenessMs: number
}

/**
 * What confirmed the token: a TokenReview now, a cached one, our own check, or an earlier review.
 */
export type Source = 'review' | 'cache' | 'local' | 'memory'

export type Authenticated = {
  readonly identity: Identity
  readonly source: Source
}

/** A token with an unverified signature is never accepted locally, nor after it expired. */
export class TokenAuthenticator implements PodListener {
  readonly #options: TokenAuthenticatorOptions
  /** Identities by `jti`, until the grace period after the token's `exp` is over. */
  readonly #memory: LRUCache<string, Identity>

  constructor(options: TokenAuthenticatorOptions) {
    this.#options = options
    this.#memory = ttlCache({ entriesMax: options.entriesMax, clock: options.clock })
  }

  /** Throws a `Fault` when nobody could decide. */
  async authenticate(
    token: string,
    claims: Claims,
    signature: SignatureState,
  ): Promise<Verdict<Authenticated>> {
    if (this.#isExpired(claims)) return this.#recall(claims, signature)
    try {
      const found = this.#options.verdicts.find(token, claims)
      // A cached verdict is returned synchronously.
      const source = found instanceof Promise ? 'review' : 'cache'
      const verdict = await found
      if (!verdict.ok) return verdict
      // The API server accepts a token until a minute after its end: only a proof from before counts.
      if (this.#isExpired(claims)) return this.#recall(claims, signature)
      this.#remember(claims, verdict.value)
      return granted({ identity: verdict.value, source })
    } catch (error) {
      if (this.#mayVerifyLocally(error, signature, claims)) {
        return granted({ identity: identityOf(claims), source: 'local' })
      }
      throw error
    }
  }

  /**
   * Whether a verdict from this source still counts: a reload can change the rules of a local one.
   */
  isStanding(source: Source, claims: Claims): boolean {
    return source !== 'local' || this.#isLocalAllowed(claims)
  }

  podGone({ uid }: WatchedPod): void {
    this.#forgetPod(uid)
  }

  podEnding({ uid }: WatchedPod): void {
    this.#forgetPod(uid)
  }

  #forgetPod(podUid: string): void {
    this.#options.verdicts.invalidatePod(podUid)
    for (const [tokenId, identity] of this.#memory.entries()) {
      if (identity.podUid === podUid) this.#memory.delete(tokenId)
    }
  }

  #isExpired({ expiresAt }: Claims): boolean {
    return this.#options.clock.now() >= expiresAt * 1000
  }

  #recall(claims: Claims, signature: SignatureState): Verdict<Authenticated> {
    const { tokenId } = claims
    if (tokenId === undefined || signature !== 'verified') return denied('token_expired')
    const identity = this.#memory.get(tokenId)
    if (identity?.podUid !== claims.podUid) return denied('token_expired')
    return granted({ identity, source: 'memory' })
  }

  #remember(claims: Claims, identity: Identity): void {
    const { expiredTokenReconnectGraceMs } = this.#options.rules()
    if (expiredTokenReconnectGraceMs === 0 || claims.tokenId === undefined) return
    const ttl = claims.expiresAt * 1000 - this.#options.clock.now() + expiredTokenReconnectGraceMs
    this.#memory.set(claims.tokenId, identity, { ttl })
  }

  #mayVerifyLocally(error: unknown, signature: SignatureState, claims: Claims): boolean {
    return (
      error instanceof Fault &&
      error.code === 'review_unavailable' &&
      !(error instanceof ReviewUndecided) &&
      signature === 'verified' &&
      this.#isLocalAllowed(claims)
    )
  }

  #isLocalAllowed(claims: Claims): boolean {
    const { rules, watchStaleMs, isIssuerKnown } = this.#options
    const { onApiOutage, maxWatchStalenessMs } = rules()
    return (
      onApiOutage === 'verify-locally' &&
      !this.#isExpired(claims) &&
      watchStaleMs(claims) <= maxWatchStalenessMs &&
      isIssuerKnown(claims)
    )
  }
}
