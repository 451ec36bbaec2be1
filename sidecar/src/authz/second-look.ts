/** Second looks: what the watch shows may be behind, and a live answer says whether it is. */

import { granted, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import { BELIEVED_MS_MAX, type LiveAnswers, type Question } from './live-answers.ts'

/** How long to wait for the watch to show what it has not shown yet, in milliseconds. */
export const UNSEEN_WAIT_MS = 2000

/** What the watch leaves uncertain, and how a live answer decides it. */
export type Doubt<T extends object> = Question<T> & {
  readonly answers: LiveAnswers<T>
  /** An answer that was asked for earlier may not refuse, on the monotonic clock. */
  readonly since: number
  readonly silentMs: number
  /** The API server shows something else than the watch, which is then ended. */
  readonly onContradicted: () => void
}

/** What the watch shows, where that refuses but may only be old. */
export type Sight = {
  /** Whether the watch shows it still. */
  readonly isAmiss: () => boolean
  /** Resolves when it is no longer amiss, or will stay so, or after `ms` milliseconds. */
  readonly wait: (ms: number) => Promise<void>
  /** What the watch does not show, in words. */
  readonly missing: string
}

/**
 * A watch that says nothing may be dead: a live answer then has to confirm what it shows. Returns for
 * how many milliseconds more that is believed: a new answer counts from when it came.
 */
export async function confirm<T extends object>(
  doubt: Doubt<T>,
  isOutageTolerated: boolean,
): Promise<Verdict<number>> {
  const { answers, key, silentMs, judge, since, onContradicted } = doubt
  if (silentMs <= BELIEVED_MS_MAX) return granted(BELIEVED_MS_MAX - silentMs)
  // While the watch is open a recent answer may admit; only a new answer may refuse.
  if (silentMs < Infinity && judge(answers.find(key)).ok) {
    return granted(answers.freshForMs(key) ?? 0)
  }
  try {
    const judged = await answers.ask(doubt, since)
    if (judged.ok) return granted(BELIEVED_MS_MAX)
    onContradicted()
    return judged
  } catch (error) {
    const isOutage = error instanceof Fault && error.code === 'pod_unconfirmed'
    if (isOutage && isOutageTolerated) return granted(BELIEVED_MS_MAX)
    throw error
  }
}

/**
 * Only a new answer refuses, and none admits: if the API server shows what the watch does not, the
 * watch gets a moment to show it, and the next watch another one. Throws a `Fault` where the API server
 * cannot be asked, or where no watch shows it in time.
 */
export async function lookAgain<T extends object>(
  doubt: Doubt<T>,
  { isAmiss, wait, missing }: Sight,
): Promise<Verdict<undefined>> {
  const { answers, key, judge, since } = doubt
  if (!isAmiss()) return granted(undefined)
  const recent = answers.find(key)
  // A token that is used elsewhere again and again costs one request in two seconds.
  if (recent !== undefined && !judge(recent).ok) await wait(answers.freshForMs(key) ?? 0)
  if (!isAmiss()) return granted(undefined)
  const isShown = judge(answers.find(key)).ok
  const judged = isShown ? granted(undefined) : await answers.ask(doubt, since)
  if (!judged.ok) return judged
  await wait(UNSEEN_WAIT_MS)
  if (!isAmiss()) return granted(undefined)
  await waitForNextWatch(doubt, { isAmiss, wait, missing })
  return granted(undefined)
}

/** The API server shows what the watch should have shown by now: the next one gets a moment. */
export async function waitForNextWatch(
  { onContradicted }: Pick<Doubt<object>, 'onContradicted'>,
  { isAmiss, wait, missing }: Sight,
): Promise<void> {
  onContradicted()
  await wait(UNSEEN_WAIT_MS)
  if (!isAmiss()) return
  throw new Fault('pod_unconfirmed', `The watch is behind: the API server shows ${missing}.`)
}
