/** Proves that the `drain` command runs in the container of the sidecar it calls. */

import { createHmac, timingSafeEqual } from 'node:crypto'
import type { OwnCredentials } from '../kube/own-credentials.ts'
import type { Clock } from '../lib/clock.ts'
import { TokenBuckets } from '../lib/token-buckets.ts'

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

export type DrainProofsOptions = {
  readonly clock: Clock
  readonly credentials: Pick<OwnCredentials, 'token' | 'reread'>
}

/** Reads of our token that wrong proofs may cause: each blocks the event loop for milliseconds. */
const REREADS = { ratePerSecond: 1, burst: 5 }

/** Accepts each proof once, within its time: a proof that was overheard is worthless. */
export class DrainProofs {
  readonly #options: DrainProofsOptions
  readonly #nonces = new Set<string>()
  readonly #rereads: TokenBuckets

  constructor(options: DrainProofsOptions) {
    this.#options = options
    this.#rereads = new TokenBuckets({ ...REREADS, clock: options.clock })
  }

  /** The command has just read a token that may have been rotated since we read ours. */
  accept(proof: string): boolean {
    const { credentials } = this.#options
    if (this.#isOf(proof, credentials.token)) return true
    return this.#rereads.take('') && credentials.reread() && this.#isOf(proof, credentials.token)
  }

  /** Costs no more than a hash. Without a token of ours nobody can prove anything. */
  #isOf(proof: string, ownToken: string): boolean {
    const [, madeAt = '', nonce = '', mac = ''] = PROOF.exec(proof) ?? []
    if (mac === '' || ownToken === '') return false
    if (Math.abs(this.#options.clock.now() - Number(madeAt)) > VALID_MS) return false
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
