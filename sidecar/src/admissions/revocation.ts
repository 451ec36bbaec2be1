/** Revocation: which admissions end because of a pod, a ServiceAccount, time or the policy. */

import type { PodBinding } from '../authz/pod-binding.ts'
import type { Policy } from '../authz/policy.ts'
import { isFault, type Code } from '../denial.ts'
import type { PodListener, PodWatch } from '../kube/pod-watch.ts'
import type { WatchedAccount, WatchedPod } from '../kube/pod.ts'
import type { WatchedScopes } from '../kube/watched-scopes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Admission } from './admission.ts'
import { findLifetimeEnd, type LifetimeRules } from './lifetime.ts'
import type { AdmissionRegistry } from './registry.ts'

export type RevocationOptions = {
  readonly registry: Pick<AdmissionRegistry, 'review' | 'reviewPod' | 'revokePod' | 'revokePending'>
  readonly watch: Pick<PodWatch, 'find' | 'terminatingForMs'> & {
    readonly scopes: Pick<WatchedScopes, 'staleForMs'>
  }
  readonly binding: Pick<PodBinding, 'check'>
  /** As configured now. */
  readonly rules: () => LifetimeRules
  readonly policy: () => Policy
  readonly clock: Clock
}

/** How often each open stream's lifetime is checked, in milliseconds. */
const SWEEP_MS = 1000

export class Revocation implements PodListener {
  readonly #options: RevocationOptions
  #cancelSweep = () => {}

  constructor(options: RevocationOptions) {
    this.#options = options
  }

  /** Checks once a second whether an open stream's lifetime is over. */
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

  /** Checks every admission against the policy again. */
  policyChanged(): void {
    this.#options.registry.review(
      (admission) => this.#findPolicyEnd(admission) ?? this.#findBindingEnd(admission),
    )
  }

  /** Why an open stream's lifetime is over. */
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
        watchStaleMs: watch.scopes.staleForMs(claims),
        nowMs: clock.now(),
      },
      rules(),
    )
  }

  /** A pending admission has no role yet: its last check covers the role. */
  #findPolicyEnd(admission: Admission): Code | undefined {
    const { claims, role, kind } = admission
    const policy = this.#options.policy()
    if (!policy.isEnabled) return 'trust_disabled'
    if (!policy.isListed(claims.namespace, claims.serviceAccount)) return 'identity_not_allowed'
    if (role === undefined) return admission.findOfferEnd()
    const grant = policy.authorize(claims, role)
    if (!grant.ok) return grant.code
    const isAllowed = kind === 'own' || grant.value.isHostingAllowed
    return isAllowed ? admission.findOfferEnd() : 'session_hosting_not_allowed'
  }

  /** The binding rules may be stricter now. A fault ends no stream, only a denial does. */
  #findBindingEnd({ claims, address, state }: Admission): Code | undefined {
    const { binding } = this.#options
    if (state === 'pending') return undefined
    // The streams of a terminating pod may go on until the end of its grace period.
    const bound = binding.check({ claims, address, mayFinish: true })
    return bound.ok || isFault(bound.code) ? undefined : bound.code
  }
}
