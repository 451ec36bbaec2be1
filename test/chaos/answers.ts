/** What each stranger must be told: the verdict on what it shows, and a fault where nobody could say. */

import { setTimeout as sleep } from 'node:timers/promises'
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
  // Even a deletion without grace shows the pod as being deleted for a moment.
  "a deleted pod's token": ['pod_deleted', 'pod_not_found', 'pod_terminating', 'review_rejected'],
  'a token for another audience': ['audience_mismatch'],
  "a stranger's token": ['identity_not_allowed'],
  'a token without a pod': ['token_not_pod_bound'],
  // It says something else than a `connect.request`.
  'no token': ['frame_malformed'],
}
/** How each problem reads in which somebody got in. */
export const LET_IN = 'was let in'
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

export type Verdict = 'denied' | 'doubted' | { readonly problem: string }

/**
 * What the answer means: `denied` for the right reason, `doubted` where the stranger has to come again, or what is
 * wrong with it. That a deleted pod's token gets in for a moment is for the caller to judge.
 */
export const judgeAnswer = (
  { pretence, outcome, code }: Judged,
  { isPodGone, hasWrongClock }: Circumstances,
): Verdict => {
  if (outcome === 'in') return { problem: `${pretence} ${LET_IN}` }
  if (outcome === 'no answer') return 'doubted'
  const denials = [...DENIALS[pretence], ...(isPodGone ? DENIALS["a deleted pod's token"] : [])]
  if (denials.some((denial) => denial === code)) return 'denied'
  const isDoubted = isDoubt(code) || (hasWrongClock && WRONG_CLOCK.some((each) => each === code))
  return isDoubted ? 'doubted' : { problem: `${pretence} was told ${code}` }
}

const isDoubt = (code: string): boolean =>
  // A slow network looks like a slow caller.
  code === 'handshake_timeout' || (Object.hasOwn(CODES, code) && isFault(code as Code))

/** Where the API server was asked a moment ago it is asked again after two seconds. */
const COME_AGAIN_MS = 2200
/** Then it denies: one doubted answer, and two handshakes of 10 s at most. */
const DENIED_WITHIN_MS = COME_AGAIN_MS + 2 * 10_000

/** When a stranger that comes now, and to whom everybody can answer, is denied at the latest. */
export const deniedBy = (): number => performance.now() + DENIED_WITHIN_MS

/** Comes again, as it is told to, until it is denied; the problem, if it is told anything else, or told so too long. */
export const comeUntilDenied = async (
  attempt: () => Promise<{ readonly verdict: Verdict; readonly told: string }>,
  until: number,
): Promise<string | undefined> => {
  for (;;) {
    const startedAt = performance.now()
    const { verdict, told } = await attempt()
    if (verdict === 'denied') return undefined
    if (verdict !== 'doubted') return verdict.problem
    if (startedAt > until) return `${told} in the end`
    await sleep(COME_AGAIN_MS)
  }
}
