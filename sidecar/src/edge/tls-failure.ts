/** Why a TLS handshake failed, read from what Node tells of it. */

import { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { TlsFailure } from '../observe/tls-failures.ts'

/** OpenSSL's words, as Node makes them an error code; the first that is part of the code decides. */
const BY_CODE: readonly (readonly [part: RegExp, reason: TlsFailure])[] = [
  [/CERT_HAS_EXPIRED/, 'client_certificate_expired'],
  [/HTTP_REQUEST|HTTPS_PROXY_REQUEST/, 'plain_http'],
  [/DID_NOT_RETURN_A_CERTIFICATE/, 'client_certificate_missing'],
  [/UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION|VERSION_TOO_LOW/, 'no_shared_version'],
  [/NO_SHARED_CIPHER|NO_SUITABLE|NO_SHARED_GROUP|ALERT_HANDSHAKE_FAILURE/, 'no_shared_cipher'],
  // Alerts that a client sends about the certificate it was shown.
  [/ALERT_(UNKNOWN_CA|(BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_)/, 'certificate_refused'],
  [/TIMEOUT/, 'timeout'],
  [/ECONNRESET|EPIPE/, 'reset'],
  [/WRONG_VERSION_NUMBER|UNKNOWN_PROTOCOL|PACKET_LENGTH|BAD_RECORD_TYPE/, 'not_tls'],
]

export function readTlsFailure(error: Error, socket: TLSSocket): TlsFailure {
  // A code; Node's types say an error. Node closes the connection for it, and calls that a reset.
  const unauthorized = socket.authorizationError as unknown
  if (unauthorized === 'CERT_HAS_EXPIRED') return 'client_certificate_expired'
  if (typeof unauthorized === 'string') return 'client_certificate_invalid'
  const code = 'code' in error ? String(error.code) : ''
  return BY_CODE.find(([part]) => part.test(code))?.[1] ?? 'other'
}

/**
 * The accepted connection under a TLS socket: its address is known when the TLS socket has lost its
 * own. Node has the property, but not in its documentation; without it only an address is lost.
 */
export function connectionUnder(socket: TLSSocket): Socket | undefined {
  const { _parent: under } = socket as { readonly _parent?: unknown }
  return under instanceof Socket ? under : undefined
}
