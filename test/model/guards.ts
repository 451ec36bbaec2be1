/** Guards of the sidecar: each in the model, in the code, and in the test that fails without it. */

export type Guard = {
  /** The model leaves it out with `-DWITHOUT_<name>`. */
  readonly name: string
  readonly says: string
  /** Where it stands, and what takes it away; both texts are in the file exactly once. */
  readonly code: { readonly file: string; readonly from: string; readonly to: string }
  /** The test of the code that plays what the model finds without it. */
  readonly test: { readonly file: string; readonly name: string }
  /** Without it a worker waits for ever; by default somebody is let in, or stays, who must not. */
  readonly isLiveness?: true
}

const admit = 'sidecar/src/edge/admit.ts'
const lifecycle = 'sidecar/src/admissions/lifecycle.ts'
const verdictCache = 'sidecar/src/authn/verdict-cache.ts'
const revocation = 'sidecar/src/admissions/revocation.ts'
const podBinding = 'sidecar/src/authz/pod-binding.ts'
const reflector = 'sidecar/src/kube/reflector.ts'

export const GUARDS: readonly Guard[] = [
  {
    name: 'LATE_RECHECK',
    says: 'pod, account and policy are asked again after the last wait',
    code: {
      file: admit,
      from: 'findLateObjection(request, proven) ?? handshake.findObjection()',
      to: 'handshake.findObjection()',
    },
    test: { file: 'test/integration/races.test.ts', name: 'its role is taken off its entry' },
  },
  {
    name: 'LAST_TURN',
    says: 'nothing is awaited between the last question and the release',
    code: {
      file: admit,
      from: 'if (objection !== undefined || !admission',
      to: 'await Promise.resolve()\n      if (objection !== undefined || !admission',
    },
    test: { file: 'test/integration/races.test.ts', name: 'its role is taken off its entry' },
  },
  {
    name: 'LIFECYCLE',
    says: 'a revoked admission is refused by its state',
    code: {
      file: lifecycle,
      from: "admit: ['closing', 'refuse']",
      to: "admit: ['admitted', 'release']",
    },
    test: {
      file: 'test/unit/admissions.test.ts',
      name: 'whatever the order of events, nothing is released after a revocation or an end',
    },
  },
  {
    name: 'PENDING_REVOCATION',
    says: 'an admission can be revoked from its signature on',
    code: {
      file: lifecycle,
      from: "revoke: ['closing', 'abort']",
      to: "revoke: ['pending', 'none']",
    },
    test: {
      file: 'test/integration/drain.test.ts',
      name: 'an admission under way is refused properly, not cut off, when its turn comes',
    },
  },
  {
    name: 'DRAIN_LATCH',
    says: 'nothing begins once a drain has begun',
    code: {
      file: 'sidecar/src/admissions/registry.ts',
      from: "hostedPerPodMax = 0 } = this.#options\n    if (this.#draining !== undefined) return 'draining'",
      to: 'hostedPerPodMax = 0 } = this.#options',
    },
    test: {
      file: 'test/unit/admissions.test.ts',
      name: 'nothing begins after a drain has begun',
    },
  },
  {
    name: 'POD_REVOCATION',
    says: "the end of a pod revokes the pod's admissions",
    code: {
      file: revocation,
      from: "this.#options.registry.revokePod(uid, 'pod_deleted')",
      to: 'void uid',
    },
    test: {
      file: 'test/integration/revocation.test.ts',
      name: 'a deleted pod loses its streams at once, and its token although the cluster still accepts it',
    },
  },
  {
    name: 'REBINDING',
    says: 'a pod that has lost an address has its streams bound again',
    code: {
      file: revocation,
      from: 'this.#options.registry.reviewPod(uid, (admission) => this.#findBindingEnd(admission))',
      to: 'void uid',
    },
    test: {
      file: 'test/integration/revocation.test.ts',
      name: 'a stream ends with the address or the ServiceAccount that admitted it, and not for lack of news',
    },
  },
  {
    name: 'ACCOUNT_REVOCATION',
    says: "the end of a ServiceAccount revokes its pods' admissions",
    code: {
      file: revocation,
      from: "claims.serviceAccountUid === uid ? 'service_account_deleted' : undefined",
      to: 'claims.serviceAccountUid === `${uid} not` ? undefined : undefined',
    },
    test: {
      file: 'test/integration/revocation.test.ts',
      name: 'a deleted ServiceAccount ends the access of all its pods, even if it is re-created',
    },
  },
  {
    name: 'POLICY_REVIEW',
    says: 'every stream has to pass a new policy',
    code: {
      file: revocation,
      from: '(admission) => this.#findPolicyEnd(admission) ?? this.#findBindingEnd(admission)',
      to: '(admission) => (this.#findPolicyEnd(admission), undefined)',
    },
    test: {
      file: 'test/integration/reload.test.ts',
      name: 'a removed identity loses its streams, a kept one keeps them, and a new one can enter',
    },
  },
  {
    name: 'CACHE_INVALIDATION',
    says: "the verdicts on a pod's tokens go with the pod",
    code: {
      file: verdictCache,
      from: 'for (const key of this.#keysOfPod.get(podUid) ?? []) this.#good.delete(key)',
      to: '',
    },
    test: {
      file: 'test/unit/verdict-cache.test.ts',
      name: 'an invalidated pod loses all its verdicts, and no other pod does',
    },
  },
  {
    name: 'FLIGHT_DISCARD',
    says: 'a review that was under way when its pod went is discarded',
    code: { file: verdictCache, from: 'flight.discarded = true', to: '' },
    test: {
      file: 'test/unit/verdict-cache.test.ts',
      name: 'a review that ends after its pod was invalidated is discarded',
    },
  },
  {
    name: 'SHRUNK_TTL',
    says: 'where there is no watch a verdict is kept for 10 s at most',
    code: {
      file: verdictCache,
      from: 'this.#options.clock.monotonic() - keptAt < this.#options.ttlMs(claims)',
      to: 'keptAt <= this.#options.clock.monotonic() || claims === undefined',
    },
    test: {
      file: 'test/unit/verdict-cache.test.ts',
      name: 'a shorter TTL applies at once to verdicts already kept',
    },
  },
  {
    name: 'SILENCE_CHECK',
    says: 'behind a silent watch of pods a live answer has to confirm',
    code: {
      file: podBinding,
      from: 'silentMs: pods.scopes.silentForMs(caller.claims)',
      to: 'silentMs: pods.scopes.silentForMs(caller.claims) === Infinity ? Infinity : 0',
    },
    test: {
      file: 'test/integration/watch.test.ts',
      name: 'an answer that contradicts a mute watch refuses, and ends that watch',
    },
  },
  {
    name: 'ACCOUNTS_SILENCE_CHECK',
    says: 'behind a silent watch of ServiceAccounts a live answer has to confirm',
    code: {
      file: podBinding,
      from: 'silentMs: pods.scopes.accountsSilentForMs(claims)',
      to: 'silentMs: pods.scopes.accountsSilentForMs(claims) === Infinity ? Infinity : 0',
    },
    test: {
      file: 'test/integration/watch.test.ts',
      name: 'behind a mute watch no worker of a deleted or re-created ServiceAccount enters',
    },
  },
  {
    name: 'LATE_ANSWER',
    says: 'behind a silent watch it is asked for again where the gateway took more than 2 s',
    code: {
      file: admit,
      from: 'stages.binding.isOutdated(caller, believedUntil)',
      to: 'believedUntil.pod < 0',
    },
    test: {
      file: 'test/integration/slow-gateway.test.ts',
      name: 'a pod that goes behind a mute watch while the gateway takes its time stays out',
    },
  },
  {
    name: 'WATCH_DEADLINE',
    says: 'a watch ends after 35 s, and the next one tells what it did not',
    code: {
      file: reflector,
      from: "dead.abort(new Error('the watch exceeded its maximum duration'))",
      to: 'undefined',
    },
    test: {
      file: 'test/unit/reflector.test.ts',
      name: 'a watch that exceeds its time is treated as dead, and resumes where it was',
    },
  },
  {
    name: 'RELIST_DIFF',
    says: 'a pod that is missing from a new list is gone',
    code: {
      file: 'sidecar/src/kube/pod-watch.ts',
      from: 'if (covers(pod) && !uids.has(pod.uid)) this.#removePod(pod)',
      to: 'void [covers, uids, pod]',
    },
    test: {
      file: 'test/unit/pod-watch.test.ts',
      name: 'a list shows which pods left while nobody watched, in its own scope only',
    },
  },
  {
    name: 'PREDECESSOR_WAIT',
    says: "a session dials when the pod's earlier one has left the gateway",
    code: {
      file: 'sidecar/src/dialect/openclaw/openclaw.ts',
      from: 'await awaitCleared(session, clock, context.signal)',
      to: 'void [awaitCleared, clock]',
    },
    test: {
      file: 'test/integration/openclaw-session.test.ts',
      name: 'a newer session of a pod displaces the older one, and dials when its socket is gone',
    },
  },
  {
    name: 'NEGATIVE_TTL',
    says: 'a bad verdict is forgotten after 2 s',
    code: {
      file: verdictCache,
      from: 'this.#bad.set(key, verdict, { ttl: this.#options.negativeTtlMs })',
      to: 'this.#bad.set(key, verdict)',
    },
    test: {
      file: 'test/unit/verdict-cache.test.ts',
      name: 'a bad verdict holds for 2 s, so that it does not prolong an outage',
    },
    isLiveness: true,
  },
  {
    name: 'DISTRUST_PAUSE',
    says: 'a watch that is behind is ended at most once in 10 s',
    code: {
      file: reflector,
      from: 'if (this.#aliveUntil === undefined || clock.monotonic() < this.#trustedUntil) return',
      to: 'if (this.#aliveUntil === undefined) return',
    },
    test: {
      file: 'test/unit/reflector.test.ts',
      name: 'a watch that is behind is ended, and again only after 10 s, then ever less often',
    },
    isLiveness: true,
  },
]
