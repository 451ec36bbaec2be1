/** Revocation: which admissions end when a pod, a ServiceAccount, the time or the policy says so. */

import type { PodBinding } from '../authz/pod-binding.ts'
import type { Policy } from '../authz/policy.ts'
import { isFault, type Code } from '../denial.ts'
import type { PodListener, PodWatch } from '../kube/pod-watch.ts'
import type { WatchedAccount, WatchedPod } from '../kube/pod.ts'
import type { Clock } from '../lib/clock.ts'
import type { Admission } from './admission.ts'
import { findLifetimeEnd, type LifetimeRules } from './lifetime.ts'
import type { AdmissionRegistry } from './registry.ts'

export type RevocationOptions = {
  readonly registry: Pick<AdmissionRegistry, 'review' | 'reviewPod' | 'revokePod' | 'revokePending'>
  readonly watch: Pick<PodWatch, 'find' | 'terminatingForMs' | 'staleForMs'>
  readonly binding: Pick<PodBinding, 'check'>
  /** As configured now. */
  readonly rules: () => LifetimeRules
  readonly policy: () => Policy
  readonly clock: Clock
}

/** How often open streams are asked whether their time is over, in milliseconds. */
const SWEEP_MS = 1000

export class Revocation implements PodListener {
  readonly #options: RevocationOptions
  #cancelSweep = () => {}

  constructor(options: RevocationOptions) {
    this.#options = options
  }

  /** Asks every open stream once a second whether its time is over. */
  start(): void {
    const { clock, registry } = this.#options
    registry.review((admission) => this.#findEnd(admission))
    this.#cancelSweep = clock.after(SWEEP_MS, () => this.start())
  }

  stop(): void {
    this.#cancelSweep()
  }

  podGone({ uid }: WatchedPod): void {
    this.#options.registry.revokePod(uid, 'pod_deleted')
  }

  podChanged({ uid }: WatchedPod): void {
    this.#options.registry.reviewPod(uid, (admission) => this.#findBindingEnd(admission))
  }

  podEnding({ uid, terminationSeconds }: WatchedPod): void {
    const { registry } = this.#options
    if (terminationSeconds === undefined) registry.revokePod(uid, 'pod_not_running')
    else registry.revokePending(uid, 'pod_terminating')
  }

  accountGone({ uid }: WatchedAccount): void {
    this.#options.registry.review(({ claims }) =>
      claims.serviceAccountUid === uid ? 'service_account_deleted' : undefined,
    )
  }

  /** Every admission has to pass the policy again. */
  policyChanged(): void {
    this.#options.registry.review(
      (admission) => this.#findPolicyEnd(admission) ?? this.#findBindingEnd(admission),
    )
  }

  /** Why an open stream's time is over. */
  #findEnd({ claims, admittedAt }: Admission): Code | undefined {
    if (admittedAt === undefined) return undefined
    const { clock, rules, watch } = this.#options
    const agoMs = watch.terminatingForMs(claims.podUid)
    const graceMs = (watch.find(claims.podUid)?.terminationSeconds ?? 0) * 1000
    return findLifetimeEnd(
      {
        claims,
        admittedAgoMs: clock.monotonic() - admittedAt,
        termination: agoMs === undefined ? undefined : { agoMs, graceMs },
        watchStaleMs: watch.staleForMs,
        nowMs: clock.now(),
      },
      rules(),
    )
  }

  /** An admission under way has no role yet: its last question asks for that. */
  #findPolicyEnd({ claims, role }: Admission): Code | undefined {
    const policy = this.#options.policy()
    if (!policy.isEnabled) return 'trust_disabled'
    if (!policy.isListed(claims.namespace, claims.serviceAccount)) return 'identity_not_allowed'
    if (role === undefined) return undefined
    const grant = policy.authorize(claims, role)
    return grant.ok ? undefined : grant.code
  }

  /** The rules of the binding may be stricter now; what only cannot be said ends no stream. */
  #findBindingEnd({ claims, address, state }: Admission): Code | undefined {
    const { binding } = this.#options
    const bound = state === 'admitted' ? binding.check({ claims, address }) : undefined
    // The streams of a terminating pod have until the end of its grace.
    if (bound?.ok !== false || isFault(bound.code) || bound.code === 'pod_terminating') {
      return undefined
    }
    return bound.code
  }
}
