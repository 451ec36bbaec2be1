/** Verified tokens: remembers the claims of each token whose signature was valid. */

import { createHmac, randomBytes } from 'node:crypto'
import type { CompactVerifyGetKey } from 'jose'
import { LRUCache } from 'lru-cache'
import type { Claims } from '../identity.ts'

/**
 * Only a token with a valid signature is remembered, and only for the keys that verified it: with
 * the next set of keys it is verified again. Its claims are judged every time. No token is stored:
 * the cache keys are HMACs under a key of this process.
 */
export class VerifiedTokens {
  readonly #key = randomBytes(32)
  readonly #claims: LRUCache<string, Claims>
  readonly #verifiedBy = new WeakMap<Claims, CompactVerifyGetKey>()

  constructor(entriesMax: number) {
    this.#claims = new LRUCache({ max: entriesMax })
  }

  /** The claims of a token whose signature was valid once. */
  find(token: string): Claims | undefined {
    return this.#claims.get(this.#keyOf(token))
  }

  /** Whether these claims belong to a token that `keys` have verified. */
  isVerified(claims: Claims, keys: CompactVerifyGetKey | undefined): boolean {
    return keys !== undefined && this.#verifiedBy.get(claims) === keys
  }

  keep(token: string, claims: Claims, keys: CompactVerifyGetKey): void {
    this.#verifiedBy.set(claims, keys)
    this.#claims.set(this.#keyOf(token), claims)
  }

  #keyOf(token: string): string {
    return createHmac('sha256', this.#key).update(token).digest('base64')
  }
}
