/** What a peer's close frame may carry (RFC 6455 §5.5.1 and §7.4). */

import { isUtf8 } from 'node:buffer'

export type CloseViolation = 'framing_violation' | 'invalid_utf8'

/**
 * Why a close frame with this unmasked payload must not be relayed or echoed. A library at the
 * other end would take it for our protocol error.
 */
export function findCloseViolation(payload: Buffer): CloseViolation | undefined {
  if (payload.length === 0) return undefined
  if (payload.length < 2 || !isStatus(payload.readUInt16BE(0))) return 'framing_violation'
  return isUtf8(payload.subarray(2)) ? undefined : 'invalid_utf8'
}

/**
 * 1004 is reserved; 1005, 1006 and 1015 never appear in a frame; 1016 to 2999 are for future
 * versions; 5000 and above are unassigned. 1012 to 1014 were registered with IANA after the RFC.
 */
const isStatus = (code: number): boolean =>
  (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || (code >= 3000 && code <= 4999)
