/** The token authenticator: whether a token is good, by the cluster, the cache, or our own check. */

import { LRUCache } from 'lru-cache'
import { boundedLru } from '../lib/bounded-lru.ts'
import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import { identityOf, type Claims, type Identity } from '../identity.ts'
import type { PodListener } from '../kube/pod-watch.ts'
import type { WatchedPod } from '../kube/pod.ts'
import type { SignatureState } from './signature.ts'
import type { VerdictCache } from './verdict-cache.ts'

export type TokenAuthenticatorOptions = {
  readonly verdicts: Pick<VerdictCache, 'find' | 'invalidatePod'>
  readonly clock: Clock
  readonly rules: () => AuthenticationRules
  /** Milliseconds for which the pod watch cannot be believed; 0 while it can. */
  readonly watchStaleMs: () => number
  /** Tokens remembered beyond their `exp`, at most. */
  readonly entriesMax: number
}

export type AuthenticationRules = {
  /** How long after its `exp` a token that was reviewed before still counts; 0 for never. */
  readonly expiredTokenReconnectGraceMs: number
  readonly onApiOutage: 'refuse' | 'verify-locally'
  /** A watch that was lost longer ago does not carry a local verdict, in milliseconds. */
  readonly maxWatchStalenessMs: number
}

/** Who said that a token is good: a TokenReview now, a cached one, our own check, or an earlier one. */
export type Source = 'review' | 'cache' | 'local' | 'memory'

export type Authenticated = {
  readonly identity: Identity
  readonly source: Source
}

/** A signature that was not verified is never good enough locally, nor for an expired token. */
export class TokenAuthenticator implements PodListener {
  readonly #options: TokenAuthenticatorOptions
  /** Identities by `jti`, until the grace behind the token's `exp` is over. */
  readonly #memory: LRUCache<string, Identity>

  constructor(options: TokenAuthenticatorOptions) {
    this.#options = options
    this.#memory = new LRUCache({
      ...boundedLru(options.entriesMax),
      ttl: 1,
      ttlResolution: 0,
      perf: { now: () => options.clock.monotonic() },
    })
  }

  /** Throws `Fault` when nobody could say. */
  async authenticate(
    token: string,
    claims: Claims,
    signature: SignatureState,
  ): Promise<Verdict<Authenticated>> {
    const { verdicts, clock } = this.#options
    if (clock.now() >= claims.expiresAt * 1000) return this.#recall(claims, signature)
    try {
      const found = verdicts.find(token, claims)
      // What is in hand is handed over at once.
      const source = found instanceof Promise ? 'review' : 'cache'
      const verdict = await found
      if (!verdict.ok) return verdict
      this.#remember(claims, verdict.value)
      return granted({ identity: verdict.value, source })
    } catch (error) {
      if (this.#mayVerifyLocally(error, signature)) {
        return granted({ identity: identityOf(claims), source: 'local' })
      }
      throw error
    }
  }

  /** Whether a verdict of this source still counts: the rules of a local one can be reloaded. */
  isStanding(source: Source): boolean {
    return source !== 'local' || this.#isLocalAllowed()
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

  #mayVerifyLocally(error: unknown, signature: SignatureState): boolean {
    return (
      error instanceof Fault &&
      error.code === 'review_unavailable' &&
      signature === 'verified' &&
      this.#isLocalAllowed()
    )
  }

  #isLocalAllowed(): boolean {
    const { onApiOutage, maxWatchStalenessMs } = this.#options.rules()
    return onApiOutage === 'verify-locally' && this.#options.watchStaleMs() <= maxWatchStalenessMs
  }
}
