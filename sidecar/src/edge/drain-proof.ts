/** How the `drain` command shows that it stands in the container of the sidecar it calls. */

import { createHmac, timingSafeEqual } from 'node:crypto'

export const PROOF_HEADER = 'x-auth-sidecar-proof'

const PURPOSE = 'openclaw-auth-sidecar drain'

/**
 * Both read the sidecar's own token for the API server from the same file, which no other pod can
 * have and no other container needs. What is sent is a keyed hash: it shows that the token is
 * known, and does not tell it.
 */
export const proveDrain = (ownToken: string): string =>
  createHmac('sha256', ownToken).update(PURPOSE).digest('base64url')

/** Without a token of our own nobody can prove anything. */
export function isDrainProof(proof: string, ownToken: string): boolean {
  const shown = Buffer.from(proof)
  const expected = Buffer.from(proveDrain(ownToken))
  return ownToken !== '' && shown.length === expected.length && timingSafeEqual(shown, expected)
}
