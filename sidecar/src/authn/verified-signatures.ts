/** Remembers whose signature held, so that a worker that comes back costs no second verification. */

import { createHmac, randomBytes } from 'node:crypto'
import type { CompactVerifyGetKey } from 'jose'
import { LRUCache } from 'lru-cache'

/**
 * Whether a signature holds depends on the token and the keys alone, so the answer is good for as
 * long as both are the same. Keys that were fetched anew are others. Only signatures that held are
 * kept: a flood of forged tokens evicts none. Names are an HMAC under a key of this process.
 */
export class VerifiedSignatures {
  readonly #secret = randomBytes(32)
  readonly #names: LRUCache<string, true>
  #keys: CompactVerifyGetKey | undefined

  /** Tokens that are remembered at most. */
  constructor(max: number) {
    this.#names = new LRUCache({ max })
  }

  has(token: string, keys: CompactVerifyGetKey): boolean {
    return this.#keys === keys && this.#names.has(this.#nameOf(token))
  }

  add(token: string, keys: CompactVerifyGetKey): void {
    if (this.#keys !== keys) this.#names.clear()
    this.#keys = keys
    this.#names.set(this.#nameOf(token), true)
  }

  #nameOf(token: string): string {
    return createHmac('sha256', this.#secret).update(token).digest('base64')
  }
}
