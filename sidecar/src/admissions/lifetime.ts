/** Lifetime: when an open stream has to end although nobody deleted anything. */

import type { Code } from '../denial.ts'
import type { Claims } from '../identity.ts'

export type LifetimeRules = {
  readonly onTokenExpiry: 'keep-while-pod-lives' | 'close'
  /** Milliseconds a stream may live; 0 for no limit. */
  readonly maxSessionAgeMs: number
  /** Milliseconds a terminating pod's streams may go on, and never longer than its own grace. */
  readonly terminationGraceMs: number
  /** Milliseconds without a watch after which an expired token no longer carries a stream. */
  readonly maxWatchStalenessMs: number
}

/** A stream as its lifetime is judged. Times are milliseconds; `…AgoMs` of a steady clock. */
export type Life = {
  readonly claims: Claims
  readonly admittedAgoMs: number
  /** Since when its pod is being deleted, and how long the pod was given. */
  readonly termination: { readonly agoMs: number; readonly graceMs: number } | undefined
  /** How long there has been no watch to believe. */
  readonly watchStaleMs: number
  readonly nowMs: number
}

/** Why the stream has to end now; `undefined` while it may go on. */
export function findLifetimeEnd(life: Life, rules: LifetimeRules): Code | undefined {
  const { claims, termination, nowMs } = life
  const isExpired = nowMs >= claims.expiresAt * 1000
  if (termination !== undefined) {
    const graceMs = Math.min(termination.graceMs, rules.terminationGraceMs)
    if (termination.agoMs >= graceMs) return 'pod_terminating'
  }
  if (isExpired && rules.onTokenExpiry === 'close') return 'token_expired'
  if (isExpired && life.watchStaleMs > rules.maxWatchStalenessMs) return 'watch_stale'
  if (rules.maxSessionAgeMs > 0 && life.admittedAgoMs >= rules.maxSessionAgeMs) {
    return 'session_age_exceeded'
  }
  return undefined
}
