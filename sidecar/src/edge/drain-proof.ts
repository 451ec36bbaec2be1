/** Proves that the `drain` command runs in the container of the sidecar it calls. */

import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../lib/clock.ts'

export const PROOF_HEADER = 'x-auth-sidecar-proof'

export type ProofOptions = {
  /** Wall time, in milliseconds. */
  readonly nowMs: number
  /** 16 random bytes in base64url, new for each proof. */
  readonly nonce: string
}

const PURPOSE = 'openclaw-auth-sidecar drain'
/** The longest age of a proof, in milliseconds: both sides read the same clock, a request apart. */
const VALID_MS = 10_000
/** Remembered nonces. Only a holder of the token can add one, and only one drain is ever needed. */
const NONCES_MAX = 64
const PROOF = /^([0-9]{1,16})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})$/

/**
 * Both sides read the sidecar's own token for the API server from the same file, which no other pod
 * has and no other container needs. Only a keyed hash is sent: it proves knowledge of the token
 * without revealing it.
 */
export const proveDrain = (ownToken: string, { nowMs, nonce }: ProofOptions): string =>
  `${nowMs}.${nonce}.${macOf(ownToken, `${nowMs}.${nonce}`)}`

/** Accepts each proof once, while it is fresh: an eavesdropper cannot reuse it. */
export class DrainProofs {
  readonly #clock: Pick<Clock, 'now'>
  readonly #nonces = new Set<string>()

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock
  }

  /** Costs at most one hash. Without a token of our own every proof is rejected. */
  accept(proof: string, ownToken: string): boolean {
    const [, madeAt = '', nonce = '', mac = ''] = PROOF.exec(proof) ?? []
    if (mac === '' || ownToken === '') return false
    if (Math.abs(this.#clock.now() - Number(madeAt)) > VALID_MS) return false
    const expected = Buffer.from(macOf(ownToken, `${madeAt}.${nonce}`))
    if (!timingSafeEqual(Buffer.from(mac), expected) || this.#nonces.has(nonce)) return false
    this.#remember(nonce)
    return true
  }

  #remember(nonce: string): void {
    this.#nonces.add(nonce)
    const [oldest] = this.#nonces
    if (this.#nonces.size > NONCES_MAX && oldest !== undefined) this.#nonces.delete(oldest)
  }
}

const macOf = (ownToken: string, text: string): string =>
  createHmac('sha256', ownToken).update(`${PURPOSE}|${text}`).digest('base64url')
