/** Belief: how long the answers that bound a caller count, and a new question once they are too old. */

import type { Clock } from '../lib/clock.ts'
import { granted, type Verdict } from '../denial.ts'
import type { WatchedAccount, WatchedPod } from '../kube/pod.ts'
import { confirm, type Doubt } from './second-look.ts'

/** Until when what is known of a pod and of its ServiceAccount counts, on the monotonic clock. */
export type Belief = { readonly pod: number; readonly account: number }

export const UNASKED: Belief = { pod: -Infinity, account: -Infinity }

type Doubts = { readonly pod: Doubt<WatchedPod>; readonly account: Doubt<WatchedAccount> }
type Asking = { readonly clock: Clock; readonly isOutageTolerated: boolean }

/** Asks again for what does not count any more. Throws a `Fault`. */
export async function believe(
  doubts: Doubts,
  believedUntil: Belief,
  asking: Asking,
): Promise<Verdict<Belief>> {
  const [pod, account] = await Promise.all([
    renew(doubts.pod, believedUntil.pod, asking),
    renew(doubts.account, believedUntil.account, asking),
  ])
  if (!pod.ok) return pod
  if (!account.ok) return account
  return granted({ pod: pod.value, account: account.value })
}

/** Each answer counts from when it came: the other one may have taken its time. */
async function renew<T extends object>(
  doubt: Doubt<T>,
  believedUntil: number,
  { clock, isOutageTolerated }: Asking,
): Promise<Verdict<number>> {
  if (clock.monotonic() <= believedUntil) return granted(believedUntil)
  const confirmed = await confirm(doubt, isOutageTolerated)
  return confirmed.ok ? granted(clock.monotonic() + confirmed.value) : confirmed
}
