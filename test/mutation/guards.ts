/** The guards of the sidecar that the simulation must miss: what each is for, and the text without it. */

export type Guard = {
  /** What it keeps from happening. */
  readonly name: string
  /** Below `sidecar/src`. */
  readonly file: string
  /** Stands in the file once. */
  readonly text: string
  readonly without: string
}

export const GUARDS: readonly Guard[] = [
  {
    name: 'a deleted pod ends its streams',
    file: 'admissions/revocation.ts',
    text: "this.#options.registry.revokePod(uid, 'pod_deleted')",
    without: 'void uid',
  },
  {
    name: 'a pod that moves ends its streams',
    file: 'admissions/revocation.ts',
    text: 'this.#options.registry.reviewPod(uid, (admission) => this.#findBindingEnd(admission))',
    without: 'void uid',
  },
  {
    name: 'a deleted ServiceAccount ends its streams',
    file: 'admissions/revocation.ts',
    text: "claims.serviceAccountUid === uid ? 'service_account_deleted' : undefined",
    without: 'uid === claims.podUid ? undefined : undefined',
  },
  {
    name: 'a new policy ends what it forbids',
    file: 'admissions/revocation.ts',
    text: '(admission) => this.#findPolicyEnd(admission) ?? this.#findBindingEnd(admission),',
    without: '(admission) => this.#findBindingEnd(admission),',
  },
  {
    name: 'a narrower list of commands ends the sessions that offer more',
    file: 'admissions/revocation.ts',
    text: "return isAllowed ? admission.findOfferEnd() : 'session_hosting_not_allowed'",
    without: "return isAllowed ? undefined : 'session_hosting_not_allowed'",
  },
  {
    name: 'streams are looked at again and again',
    file: 'admissions/revocation.ts',
    text: 'this.#cancelSweep = clock.after(SWEEP_MS, () => this.start())',
    without: 'void clock',
  },
  {
    name: 'a terminating pod has its grace, not more',
    file: 'admissions/lifetime.ts',
    text: "if (termination.agoMs >= graceMs) return 'pod_terminating'",
    without: 'void graceMs',
  },
  {
    name: 'a peer that does not read cannot delay the end of its stream',
    file: 'admissions/admission.ts',
    text: 'this.#cancelDestroy ??= this.#clock.after(DENIED_MS_MAX, () => this.destroy())',
    without: 'void DENIED_MS_MAX',
  },
  {
    name: 'a denial leaves a stream that closes already no more time',
    file: 'admissions/admission.ts',
    text: "if (this.#state === 'closing' && isVerdict(code)) this.#destroySoon()",
    without: "if (effect === 'close' && isVerdict(code)) this.#destroySoon()",
  },
  {
    name: 'an admission that was refused leaves no entry',
    file: 'admissions/registry.ts',
    text: 'if (outcome?.ok !== true) admission.finish()',
    without: 'void outcome',
  },
  {
    name: 'a revocation reaches the pending admissions of a terminating pod',
    file: 'admissions/registry.ts',
    text: "if (admission.state === 'pending' && admission.kind === 'own') admission.revoke(code)",
    without: 'void code',
  },
  {
    name: 'the last questions are asked again before the release',
    file: 'edge/admit.ts',
    text: 'const objection = findLateObjection(request, proven) ?? handshake.findObjection()',
    without: 'const objection = handshake.findObjection()',
  },
  {
    name: 'a token is good from the address of its pod only',
    file: 'authz/pod-binding.ts',
    text: "return pod.ips.includes(address) ? undefined : 'source_address_mismatch'",
    without: 'return undefined',
  },
  {
    name: 'a terminating pod gets no new stream',
    file: 'authz/pod-binding.ts',
    text: "if (pod.terminationSeconds !== undefined && !mayFinish) return 'pod_terminating'",
    without: 'void mayFinish',
  },
  {
    name: 'a silent watch admits nobody without a live answer',
    file: 'authz/second-look.ts',
    text: 'if (silentMs <= BELIEVED_MS_MAX) return',
    without: 'if (silentMs < Infinity || silentMs <= BELIEVED_MS_MAX) return',
  },
  {
    name: 'a silent watch of ServiceAccounts admits nobody without a live answer',
    file: 'authz/pod-binding.ts',
    text: 'silentMs: pods.scopes.accountsSilentForMs(claims),',
    without: 'silentMs: 0,',
  },
  {
    name: 'what bound a pod is asked for again where the gateway took its time',
    file: 'edge/admit.ts',
    text: 'if (stages.binding.isOutdated(caller, believedUntil)) {',
    without: 'if (believedUntil.pod < 0) {',
  },
  {
    name: 'a verdict that was asked for before its pod went does not count',
    file: 'authn/verdict-cache.ts',
    text: 'flight.discarded = true',
    without: 'void flight',
  },
  {
    name: 'a bad verdict is forgotten after two seconds',
    file: 'authn/verdict-cache.ts',
    text: '{ ttl: this.#options.negativeTtlMs }',
    without: '{ ttl: 36_000_000 }',
  },
  {
    name: 'a token that has expired is not good',
    file: 'authn/authenticator.ts',
    text: 'return this.#options.clock.now() >= expiresAt * 1000',
    without: 'return expiresAt < 0',
  },
  {
    name: 'a dead watch is given up',
    file: 'kube/reflector.ts',
    text: "dead.abort(new Error('the watch exceeded its maximum duration')),",
    without: 'void dead,',
  },
  {
    name: 'a watch that is too old is listed again',
    file: 'kube/reflector.ts',
    text: 'if (error instanceof RelistNeeded) this.#version = undefined',
    without: 'void RelistNeeded',
  },
  {
    name: 'an API server that does not answer a watch is asked again',
    file: 'kube/watch-stream.ts',
    text: 'opening.abort(new Error(`no answer within ${OPEN_DEADLINE_MS} ms`)),',
    without: 'void opening,',
  },
  {
    name: 'a pod that is missing from a list is gone',
    file: 'kube/pod-watch.ts',
    text: 'if (covers(pod) && !uids.has(pod.uid)) this.#removePod(pod)',
    without: 'void covers(pod)',
  },
  {
    name: 'a ServiceAccount that is missing from a list is gone',
    file: 'kube/pod-watch.ts',
    text: 'if (covers(account) && !uids.has(account.uid)) this.#removeAccount(account)',
    without: 'void covers(account)',
  },
  {
    name: 'a ServiceAccount of the same name is another one',
    file: 'kube/pod-watch.ts',
    text: 'if (before !== undefined && before.uid !== account.uid) this.#removeAccount(before)',
    without: 'void before',
  },
  {
    name: 'the gateway is told the address of the worker',
    file: 'tunnel/headers.ts',
    text: "['X-Forwarded-For', canonicalAddress(workerAddress)],",
    without: "['X-Forwarded-For', canonicalAddress('10.0.0.2')],",
  },
  {
    name: 'a place among the handshakes is given back',
    file: 'dialect/stream.ts',
    text: 'return dial(caller, context).finally(release)',
    without: 'return dial(caller, context).finally(() => void release)',
  },
  {
    name: 'the next session waits until the previous one has left the gateway',
    file: 'dialect/openclaw/openclaw.ts',
    text: 'await awaitCleared(session, clock, context.signal)',
    without: 'if (session === undefined) await awaitCleared(session, clock, context.signal)',
  },
  {
    name: 'the gateway is offered what the policy allows',
    file: 'dialect/openclaw/gateway-connect.ts',
    text: 'const allowed = commands.filter(isAllowed)',
    without: 'const allowed = [...commands]',
  },
  {
    name: 'what the gateway was offered is what the policy allows at the release',
    file: 'dialect/openclaw/openclaw.ts',
    text: "return isUpToDate ? undefined : 'policy_changed'",
    without: 'return isUpToDate ? undefined : undefined',
  },
  {
    name: 'a device goes with its pod',
    file: 'dialect/openclaw/ephemeral-sessions.ts',
    text: 'void over.then(() => this.#queue(id, { podName: pod.podName, podUid }))',
    without: 'void over',
  },
  {
    name: 'a removal does not hit a session that begins',
    file: 'dialect/openclaw/ephemeral-sessions.ts',
    text: 'await removal.running',
    without: 'void removal.running',
  },
]
