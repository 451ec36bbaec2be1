/** The voucher: who stands for a proven signature, the cluster now, the cache, or our own check. */

import { LRUCache } from 'lru-cache'
import { entriesMax } from '../lib/bounded-lru.ts'
import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import type { Claims, Identity } from '../identity.ts'
import type { SignatureState } from './signature.ts'
import type { VerdictCache } from './verdict-cache.ts'

export type VoucherOptions = {
  readonly verdicts: Pick<VerdictCache, 'find'>
  readonly clock: Clock
  readonly rules: () => VoucherRules
  /** Milliseconds for which the pod watch cannot be believed; 0 while it can. */
  readonly watchStaleMs: () => number
  /** Tokens remembered beyond their `exp`, at most. */
  readonly entriesMax: number
}

export type VoucherRules = {
  /** How long after its `exp` a token that was reviewed before still counts; 0 for never. */
  readonly expiredTokenReconnectGraceMs: number
  readonly onApiOutage: 'refuse' | 'verify-locally'
  /** A watch that was lost longer ago does not carry a local verdict, in milliseconds. */
  readonly maxWatchStalenessMs: number
}

export type Vouched = {
  readonly identity: Identity
  readonly by: 'review' | 'cache' | 'local' | 'memory'
}

/** A signature that was not verified never vouches locally, nor for an expired token. */
export class Voucher {
  readonly #options: VoucherOptions
  /** Identities by `jti`, until the grace behind the token's `exp` is over. */
  readonly #memory: LRUCache<string, Identity>

  constructor(options: VoucherOptions) {
    this.#options = options
    this.#memory = new LRUCache({
      ...entriesMax(options.entriesMax),
      ttl: 1,
      ttlResolution: 0,
      perf: { now: () => options.clock.monotonic() },
    })
  }

  /** Throws `Fault` when nobody could say. */
  async vouch(token: string, claims: Claims, signature: SignatureState): Promise<Verdict<Vouched>> {
    const { verdicts, clock } = this.#options
    if (clock.now() >= claims.expiresAt * 1000) return this.#recall(claims, signature)
    try {
      const found = verdicts.find(token, claims)
      // What is in hand is handed over at once.
      const by = found instanceof Promise ? 'review' : 'cache'
      const verdict = await found
      if (!verdict.ok) return verdict
      this.#remember(claims, verdict.value)
      return granted({ identity: verdict.value, by })
    } catch (error) {
      if (this.#mayVerifyLocally(error, signature)) {
        return granted({ identity: identityOf(claims), by: 'local' })
      }
      throw error
    }
  }

  /** Whether what vouched for a worker still may: the rules of a local verdict can be reloaded. */
  isStanding(by: Vouched['by']): boolean {
    return by !== 'local' || this.#isLocalAllowed()
  }

  /** Forgets what is remembered of a pod that went. */
  forgetPod(podUid: string): void {
    for (const [tokenId, identity] of this.#memory.entries()) {
      if (identity.podUid === podUid) this.#memory.delete(tokenId)
    }
  }

  #recall(claims: Claims, signature: SignatureState): Verdict<Vouched> {
    const { tokenId } = claims
    if (tokenId === undefined || signature !== 'verified') return denied('token_expired')
    const identity = this.#memory.get(tokenId)
    if (identity?.podUid !== claims.podUid) return denied('token_expired')
    return granted({ identity, by: 'memory' })
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

/** What a TokenReview would say of these claims; the signature is the cluster's own. */
const identityOf = (claims: Claims): Identity => ({
  namespace: claims.namespace,
  serviceAccount: claims.serviceAccount,
  podName: claims.podName,
  podUid: claims.podUid,
  nodeName: claims.nodeName,
  credentialId: claims.tokenId,
  expiresAt: claims.expiresAt,
})
