/** How a node is refused: which of our codes make it exit for a fresh token, and which make it retry. */

import { CODES, isFault, type Code } from '../../denial.ts'

/**
 * What a node does is steered by the gateway's own codes. `exit`: it ends, and its supervisor starts
 * it again with the token of that moment. `retry`: it comes back by itself, with the same token.
 * `bare`: no frame at all, only the close code; it comes back too. Codes that make a node pause for
 * ever (`PAIRING_REQUIRED`, `AUTH_RATE_LIMITED`, `AUTH_DEVICE_TOKEN_MISMATCH`,
 * `AUTH_SCOPE_MISMATCH`) are never said.
 */
type Reaction = 'exit' | 'retry' | 'bare'

const EXIT_DETAILS = 'AUTH_TOKEN_MISMATCH'
const RETRY_DETAILS = 'AUTH_UNAUTHORIZED'

/** Verdicts that stand against this token for good: only another one can help. */
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

/** Faults of the device proof, in the gateway's own words. */
const DEVICE_DETAILS: Readonly<Partial<Record<Code, string>>> = {
  device_id_mismatch: 'DEVICE_AUTH_DEVICE_ID_MISMATCH',
  device_nonce_mismatch: 'DEVICE_AUTH_NONCE_MISMATCH',
  device_clock_skew: 'DEVICE_AUTH_SIGNATURE_EXPIRED',
  device_signature_invalid: 'DEVICE_AUTH_SIGNATURE_INVALID',
}

/** Every other denial may be undone without a new token: by the policy, the pod, or the clock. */
export function reactionTo(code: Code): Reaction {
  if (isFault(code)) return 'bare'
  return EXIT.has(code) ? 'exit' : 'retry'
}

/** The answer to a refused `connect`, to be followed by the close frame. */
export function refusalFrame(code: Code, requestId: string): string | undefined {
  const reaction = reactionTo(code)
  if (reaction === 'bare') return undefined
  const isExit = reaction === 'exit'
  const details = {
    code: isExit ? EXIT_DETAILS : (DEVICE_DETAILS[code] ?? RETRY_DETAILS),
    // For the log of the node; what steers it is the code above.
    authReason: code,
    canRetryWithDeviceToken: false,
    recommendedNextStep: isExit ? 'update_auth_credentials' : 'wait_then_retry',
  }
  const error = { code: 'INVALID_REQUEST', message: CODES[code].message, details }
  return JSON.stringify({ type: 'res', id: requestId, ok: false, error })
}
