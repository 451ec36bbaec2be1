/** What each stranger must be told: the verdict on what it shows, and a fault where nobody could say. */

import { CODES, isFault, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'

export type Pretence =
  | 'a forged signature'
  | "another pod's token"
  | "a deleted pod's token"
  | 'a token for another audience'
  | "a stranger's token"
  | 'a token without a pod'
  | 'no token'

/** The verdicts that end it. A stranger that is told anything else may come again. */
const DENIALS: Readonly<Record<Pretence, readonly Code[]>> = {
  // Without signing keys a TokenReview decides.
  'a forged signature': ['signature_invalid', 'review_rejected'],
  "another pod's token": ['source_address_mismatch'],
  "a deleted pod's token": ['pod_deleted', 'pod_not_found', 'review_rejected'],
  'a token for another audience': ['audience_mismatch'],
  "a stranger's token": ['identity_not_allowed'],
  'a token without a pod': ['token_not_pod_bound'],
  // It says something else than a `connect.request`.
  'no token': ['frame_malformed'],
}
const WRONG_CLOCK: readonly Code[] = ['token_expired', 'token_not_yet_valid']

export type Judged = {
  readonly pretence: Pretence
  readonly outcome: 'in' | 'refused' | 'no answer'
  /** Why it was refused. */
  readonly code: string
}

export type Circumstances = {
  /** Whether the pod of the token was deleted before the answer came. */
  readonly isPodGone: boolean
  /** Whether the sidecar's clock may be wrong. */
  readonly hasWrongClock: boolean
}

/**
 * What the answer means: `denied` for the right reason, `doubted` where the stranger has to come again, or what is
 * wrong with it. That a deleted pod's token gets in for a moment is for the caller to judge.
 */
export const judgeAnswer = (
  { pretence, outcome, code }: Judged,
  { isPodGone, hasWrongClock }: Circumstances,
): 'denied' | 'doubted' | { readonly problem: string } => {
  if (outcome === 'in') return { problem: `${pretence} was let in` }
  if (outcome === 'no answer') return 'doubted'
  const denials = [...DENIALS[pretence], ...(isPodGone ? DENIALS["a deleted pod's token"] : [])]
  if (denials.some((denial) => denial === code)) return 'denied'
  const isDoubted = isDoubt(code) || (hasWrongClock && WRONG_CLOCK.some((each) => each === code))
  return isDoubted ? 'doubted' : { problem: `${pretence} was told ${code}` }
}

const isDoubt = (code: string): boolean =>
  // A slow network looks like a slow caller.
  code === 'handshake_timeout' || (Object.hasOwn(CODES, code) && isFault(code as Code))
