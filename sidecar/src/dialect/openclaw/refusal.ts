/** How a node is refused: which codes make it exit for a fresh token, and which make it retry. */

import { CODES, isFault, type Code } from '../../denial.ts'
import { PROTOCOL, PROTOCOL_MISMATCH } from './frames.ts'

/**
 * The gateway's own codes control what a node does. `exit`: it ends, and its supervisor restarts it
 * with the token of that moment. `retry`: it comes back by itself, with the same token. `bare`: no
 * frame, only the close code; it comes back too. `negotiate`: it tries another protocol; a current
 * node that has none pauses until it is restarted, as it does before the gateway itself, since only
 * another version can help. Other codes that make a node pause forever
 * (`PAIRING_REQUIRED`, `AUTH_RATE_LIMITED`, `AUTH_DEVICE_TOKEN_MISMATCH`, `AUTH_SCOPE_MISMATCH`)
 * are never sent.
 */
type Reaction = 'exit' | 'retry' | 'bare' | 'negotiate'

/** What a refused node offered, and what it may offer instead. */
export type ProtocolOffer = {
  readonly minProtocol: number
  readonly maxProtocol: number
  /** The oldest protocol that the gateway takes from a node. */
  readonly protocolMin: number
}

const EXIT_DETAILS = 'AUTH_TOKEN_MISMATCH'
const RETRY_DETAILS = 'AUTH_UNAUTHORIZED'

/** Final verdicts on this token: only another token can help. */
const EXIT: ReadonlySet<Code> = new Set([
  'credential_missing',
  'credential_malformed',
  'credential_too_large',
  'credential_mismatch',
  'token_malformed',
  'algorithm_not_allowed',
  'issuer_not_allowed',
  'audience_mismatch',
  'token_expired',
  'token_lifetime_exceeded',
  'token_not_pod_bound',
  'signature_invalid',
  'signing_key_unknown',
  'review_rejected',
  'review_audience_mismatch',
  'review_identity_mismatch',
  'pod_not_found',
  'pod_deleted',
  'pod_mismatch',
  'service_account_deleted',
])

/** Errors of the device proof, as the gateway's own codes. */
const DEVICE_DETAILS: Readonly<Partial<Record<Code, string>>> = {
  device_id_mismatch: 'DEVICE_AUTH_DEVICE_ID_MISMATCH',
  device_nonce_mismatch: 'DEVICE_AUTH_NONCE_MISMATCH',
  device_clock_skew: 'DEVICE_AUTH_SIGNATURE_EXPIRED',
  device_signature_invalid: 'DEVICE_AUTH_SIGNATURE_INVALID',
}

/**
 * A change of the policy, the pod or the clock can undo every other denial, without a new token.
 */
export function reactionTo(code: Code): Reaction {
  if (isFault(code)) return 'bare'
  if (code === 'protocol_mismatch') return 'negotiate'
  return EXIT.has(code) ? 'exit' : 'retry'
}

/** The answer to a refused `connect`; the close frame follows it. */
export function refusalFrame(
  code: Code,
  requestId: string,
  offer: ProtocolOffer,
): string | undefined {
  const reaction = reactionTo(code)
  if (reaction === 'negotiate') return mismatchFrame(requestId, offer)
  if (reaction === 'bare') return undefined
  const isExit = reaction === 'exit'
  const details = {
    code: isExit ? EXIT_DETAILS : (DEVICE_DETAILS[code] ?? RETRY_DETAILS),
    // For the node's log; the code above controls what it does.
    authReason: code,
    canRetryWithDeviceToken: false,
    recommendedNextStep: isExit ? 'update_auth_credentials' : 'wait_then_retry',
  }
  const error = { code: 'INVALID_REQUEST', message: CODES[code].message, details }
  return JSON.stringify({ type: 'res', id: requestId, ok: false, error })
}

/** Word for word the gateway's own: a node of several protocols finds the next one to try in it. */
function mismatchFrame(requestId: string, offer: ProtocolOffer): string {
  const details = {
    code: PROTOCOL_MISMATCH,
    clientMinProtocol: offer.minProtocol,
    clientMaxProtocol: offer.maxProtocol,
    expectedProtocol: PROTOCOL,
    minimumProbeProtocol: offer.protocolMin,
  }
  const error = { code: 'INVALID_REQUEST', message: 'protocol mismatch', details }
  return JSON.stringify({ type: 'res', id: requestId, ok: false, error })
}
