/** Verified tokens: what was read from a token, and that its signature held, is known the next time it comes. */

import { createHmac, randomBytes } from 'node:crypto'
import type { CompactVerifyGetKey } from 'jose'
import { LRUCache } from 'lru-cache'
import type { Claims } from '../identity.ts'

/**
 * Only a token whose signature held is remembered, and only for the keys that said so: with the
 * next set of keys it has to prove itself again. What its claims are worth is asked every time. No
 * token is kept: the keys of the memory are HMACs under a key of this process.
 */
export class VerifiedTokens {
  readonly #key = randomBytes(32)
  readonly #claims: LRUCache<string, Claims>
  readonly #verifiedBy = new WeakMap<Claims, CompactVerifyGetKey>()

  constructor(entriesMax: number) {
    this.#claims = new LRUCache({ max: entriesMax })
  }

  /** The claims of a token whose signature held once. */
  find(token: string): Claims | undefined {
    return this.#claims.get(this.#keyOf(token))
  }

  /** Whether these very claims are those of a token that `keys` have verified. */
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
