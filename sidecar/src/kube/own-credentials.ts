/** The sidecar's own token and CA for the API server, read again as the kubelet rotates them. */

import { decodeJwt, type JWTPayload } from 'jose'
import type { Clock } from '../lib/clock.ts'

export type OwnCredentialsOptions = {
  readonly tokenFile: string
  readonly caFile: string
  readonly readFile: (path: string) => string
  readonly clock: Clock
}

/**
 * How long a read is trusted, in milliseconds. The kubelet rotates a token at 80 % of its lifetime.
 */
const REREAD_AFTER_MS = 10_000

/** A failed read keeps the previous contents: the files are swapped, never missing for long. */
export class OwnCredentials {
  readonly #options: OwnCredentialsOptions
  #token = ''
  #ca = ''
  #readAt = -Infinity
  #expiry: { readonly token: string; readonly expiresAt: number | undefined } | undefined

  constructor(options: OwnCredentialsOptions) {
    this.#options = options
  }

  get token(): string {
    this.#readIfStale()
    return this.#token
  }

  get ca(): string {
    this.#readIfStale()
    return this.#ca
  }

  /** The token's `exp`, in seconds since the epoch; `undefined` for a token that has none. */
  get expiresAt(): number | undefined {
    const { token } = this
    if (this.#expiry?.token !== token) {
      this.#expiry = { token, expiresAt: claimsOf(token)?.exp }
    }
    return this.#expiry.expiresAt
  }

  /** The token's `iss`; `undefined` for a token that has none. */
  get issuer(): string | undefined {
    return claimsOf(this.token)?.iss
  }

  /** Reads at once, as after a 401. Returns true when the token changed. */
  reread(): boolean {
    const before = this.#token
    this.#readAt = this.#options.clock.monotonic()
    this.#token = this.#read(this.#options.tokenFile)?.trim() ?? this.#token
    this.#ca = this.#read(this.#options.caFile) ?? this.#ca
    return this.#token !== before
  }

  /**
   * Whether `used`, which the API server refused, has been rotated since. Reads the files to find
   * out.
   */
  isRotated(used: string): boolean {
    return this.token !== used || this.reread()
  }

  #readIfStale(): void {
    if (this.#options.clock.monotonic() - this.#readAt >= REREAD_AFTER_MS) this.reread()
  }

  #read(path: string): string | undefined {
    try {
      return this.#options.readFile(path)
    } catch {
      return undefined
    }
  }
}

/** The token is our own, and they only serve warnings: its signature is the API server's business. */
function claimsOf(token: string): JWTPayload | undefined {
  try {
    return decodeJwt(token)
  } catch {
    return undefined
  }
}
