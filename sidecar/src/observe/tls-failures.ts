/** Failed TLS handshakes: each is counted by its reason, and those of one address share a log line. */

import { addressGroup } from '../lib/address-group.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'

/** Every reason, with what it most often means. */
export const TLS_FAILURES = {
  plain_http: 'The client speaks plain HTTP. Give it a wss:// address, or --tls.',
  not_tls: 'The client does not speak TLS.',
  certificate_refused:
    'The client does not accept the certificate. Compare its CA, and the dates and names of the certificate.',
  client_certificate_missing:
    'The client shows no certificate. listen.tls.clientCaFile requires one.',
  client_certificate_expired: "The client's certificate has expired. Renew it.",
  client_certificate_invalid:
    "The client's certificate is not from a CA in listen.tls.clientCaFile, not for clients, or not valid yet.",
  no_shared_version:
    'The client speaks an older version of TLS only. Update it, or lower listen.tls.minVersion.',
  no_shared_cipher: 'The client and this port have no cipher or signature algorithm in common.',
  reset:
    'The client left during the handshake. Many clients do so when they do not accept the certificate.',
  timeout: 'The client did not finish the handshake in time.',
  other: 'The handshake broke the rules of TLS, or asked for another protocol than HTTP/1.1.',
} as const

export type TlsFailure = keyof typeof TLS_FAILURES

export type TlsFailuresOptions = {
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Pick<Metrics, 'tlsFailures'>
}

/** The failures of this time are logged together, in milliseconds. */
const FLUSH_MS = 10_000
/** The most lines for that time; what is over shares the last one. */
const LINES_MAX = 50

type Counted = { readonly reason: TlsFailure; readonly remoteIp: string; count: number }

export class TlsFailures {
  readonly #options: TlsFailuresOptions
  readonly #groups = new Map<string, Counted>()
  /** Failures that found no line. */
  #rest = 0
  #cancelFlush: (() => void) | undefined

  constructor(options: TlsFailuresOptions) {
    this.#options = options
  }

  /** `address` is empty where the peer is not known any more. */
  readonly failed = (reason: TlsFailure, address: string): void => {
    const { clock, metrics } = this.#options
    metrics.tlsFailures.inc({ reason })
    this.#cancelFlush ??= clock.after(FLUSH_MS, () => this.flush())
    const key = `${reason} ${addressGroup(address)}`
    const counted = this.#groups.get(key)
    if (counted !== undefined) counted.count += 1
    // The last line is that of the rest.
    else if (this.#groups.size >= LINES_MAX - 1) this.#rest += 1
    else this.#groups.set(key, { reason, remoteIp: address, count: 1 })
  }

  /** Logs what has been counted so far. */
  flush(): void {
    const { log } = this.#options
    this.#cancelFlush?.()
    this.#cancelFlush = undefined
    for (const counted of this.#groups.values()) {
      log.warn({ ...counted, hint: TLS_FAILURES[counted.reason] }, 'TLS handshakes failed')
    }
    this.#groups.clear()
    if (this.#rest > 0) log.warn({ count: this.#rest }, 'TLS handshakes of more addresses failed')
    this.#rest = 0
  }
}
