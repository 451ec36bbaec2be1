/** Lifetime: when an open stream has to end although nothing was deleted. */

import type { Code } from '../denial.ts'
import type { Claims } from '../identity.ts'

export type LifetimeRules = {
  readonly onTokenExpiry: 'keep-while-pod-lives' | 'close'
  /** Milliseconds a stream may live; 0 for no limit. */
  readonly maxSessionAgeMs: number
  /**
   * Milliseconds a terminating pod's streams may go on, but never longer than its own grace period.
   */
  readonly terminationGraceMs: number
  /** Milliseconds without a watch after which a stream with an expired token has to end. */
  readonly maxWatchStalenessMs: number
}

/**
 * What decides a stream's lifetime. Times are milliseconds; `…AgoMs` are from a monotonic clock.
 */
export type Life = {
  readonly claims: Claims
  readonly admittedAgoMs: number
  /** How long ago its pod began to terminate, and the pod's grace period. */
  readonly termination: { readonly agoMs: number; readonly graceMs: number } | undefined
  /** How long there has been no watch to trust. */
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
