/** Resumption of TLS sessions: no ticket outlives an hour, nor anything its first handshake proved. */

import { randomBytes, type X509Certificate } from 'node:crypto'
import type { Server as TlsServer, TLSSocket } from 'node:tls'
import { endOf, isValidAt, readCertificates } from '../lib/certificates.ts'
import type { Clock } from '../lib/clock.ts'
import type { TlsMaterial } from './tls.ts'

/** How long a ticket is good after the full handshake that it comes from, in seconds. */
export const TICKET_LIFETIME_S = 3600
const TICKET_LIFETIME_MS = TICKET_LIFETIME_S * 1000
const TICKET_KEYS_BYTES = 48

/**
 * OpenSSL checks a client's certificate in a full handshake alone: a resumed one carries its result.
 * New ticket keys make every older ticket worthless, and its owner falls back to a full handshake.
 * So the keys are renewed with each context, each hour, and when a CA on the way to a client's
 * certificate ends. The certificate itself is looked at again each time.
 */
export class TlsSessions {
  readonly #server: TlsServer
  readonly #clock: Clock
  /** The CAs of client certificates; `undefined` if clients show none. */
  #authorities: readonly X509Certificate[] | undefined
  #keysMadeAt = 0
  /** When the first CA ends that a ticket of these keys may rely on; wall time. */
  #authorityEndsAt = Infinity

  constructor(server: TlsServer, { clock }: { readonly clock: Clock }) {
    this.#server = server
    this.#clock = clock
  }

  /** The server has a new context, made of this. */
  begin({ ca }: Pick<TlsMaterial, 'ca'>): void {
    this.#authorities = ca === undefined ? undefined : (readCertificates(ca) ?? [])
    this.#renewKeys()
  }

  /** To be called before each handshake. */
  beforeHandshake(): void {
    const age = this.#clock.monotonic() - this.#keysMadeAt
    if (age >= TICKET_LIFETIME_MS || this.#clock.now() >= this.#authorityEndsAt) this.#renewKeys()
  }

  /** Why a connection whose handshake is over must not go on; to be called with each. */
  findObjection(socket: TLSSocket): Error | undefined {
    if (this.#authorities === undefined) return undefined
    const certificate = socket.getPeerX509Certificate()
    if (!socket.isSessionReused()) {
      this.#relyOn(issuersOf(certificate))
      return undefined
    }
    const now = this.#clock.now()
    const isGood = certificate !== undefined && isValidAt(certificate, now)
    if (isGood && now < this.#authorityEndsAt) return undefined
    // The client may have a newer certificate, which only a full handshake asks for.
    this.#renewKeys()
    return Object.assign(new Error('the certificate of the resumed session has expired'), {
      code: 'CERT_HAS_EXPIRED',
    })
  }

  #renewKeys(): void {
    this.#server.setTicketKeys(randomBytes(TICKET_KEYS_BYTES))
    this.#keysMadeAt = this.#clock.monotonic()
    this.#authorityEndsAt = Infinity
    this.#relyOn(this.#authorities ?? [])
  }

  /** One that is over by now vouches for nobody. */
  #relyOn(authorities: Iterable<X509Certificate>): void {
    const now = this.#clock.now()
    for (const authority of authorities) {
      const endsAt = endOf(authority)
      if (endsAt > now) this.#authorityEndsAt = Math.min(this.#authorityEndsAt, endsAt)
    }
  }
}

/** The intermediates that a client has shown with its certificate. */
function* issuersOf(certificate: X509Certificate | undefined): Iterable<X509Certificate> {
  let issuer = certificate?.issuerCertificate
  while (issuer !== undefined) {
    yield issuer
    issuer = issuer.issuerCertificate
  }
}
