/** The second half of the precheck: the token's signature against the cluster's keys. */

import { compactVerify, errors, type CompactVerifyGetKey } from 'jose'
import { denied, granted, type Verdict } from '../denial.ts'
import { ALGORITHMS } from './claims.ts'

/** Where the signing keys come from. */
export type KeySource = {
  /** The current keys, selected by `kid` and `alg`; `undefined` when there are none to trust. */
  readonly current: () => CompactVerifyGetKey | undefined
  /**
   * Fetches the keys again, at most once per cooldown; concurrent callers share one fetch. `refreshed`
   * only by a fetch that began after the call: an earlier one may have brought the key, but not missed it.
   */
  readonly refresh: () => Promise<'refreshed' | 'cooldown' | 'failed'>
}

/** `unavailable`: there are no keys, so only a TokenReview can decide. */
export type SignatureState = 'verified' | 'unavailable'

/** Verifies the signature. For an unknown key it fetches the keys once more before it refuses. */
export async function verifySignature(
  token: string,
  keys: KeySource,
): Promise<Verdict<SignatureState>> {
  if (keys.current() === undefined) await keys.refresh()
  const first = await attempt(token, keys.current())
  if (first !== 'unknown_key') return first
  const renewal = await keys.refresh()
  if (renewal === 'failed') return denied('keys_unavailable')
  const second = await attempt(token, keys.current())
  if (second !== 'unknown_key') return second
  // In the cooldown the key may be new: a fault, since a denial would make an OpenClaw node exit.
  return denied(renewal === 'cooldown' ? 'keys_cooldown' : 'signing_key_unknown')
}

async function attempt(
  token: string,
  key: CompactVerifyGetKey | undefined,
): Promise<Verdict<SignatureState> | 'unknown_key'> {
  if (key === undefined) return granted('unavailable')
  try {
    await compactVerify(token, key, { algorithms: ALGORITHMS })
    return granted('verified')
  } catch (error) {
    if (error instanceof errors.JWKSNoMatchingKey) return 'unknown_key'
    if (error instanceof errors.JWKSMultipleMatchingKeys) return 'unknown_key'
    return denied('signature_invalid')
  }
}
