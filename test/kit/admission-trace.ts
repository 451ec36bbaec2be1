/** What each admission of a sidecar in this process goes through, in the words of the model. */

import { AsyncLocalStorage } from 'node:async_hooks'
import { Admission } from '@openclaw-k8s/auth-sidecar/admissions/admission.ts'
import { AdmissionRegistry } from '@openclaw-k8s/auth-sidecar/admissions/registry.ts'
import { TokenAuthenticator } from '@openclaw-k8s/auth-sidecar/authn/authenticator.ts'
import { PodBinding } from '@openclaw-k8s/auth-sidecar/authz/pod-binding.ts'
import type { Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Audit } from '@openclaw-k8s/auth-sidecar/observe/audit.ts'

/** Why a model's admission is revoked, by our codes. */
const REASONS: Readonly<Record<string, readonly Code[]>> = {
  pod: ['pod_deleted', 'pod_not_running', 'source_address_mismatch', 'pod_mismatch'],
  ending: ['pod_terminating'],
  account: ['service_account_deleted'],
  policy: ['trust_disabled', 'identity_not_allowed', 'role_not_allowed', 'policy_changed'],
  drain: ['draining'],
  displaced: ['displaced'],
  worker: ['worker_gone', 'handshake_timeout', 'admission_timeout', 'too_many_pending'],
  lifetime: ['token_expired', 'watch_stale', 'session_age_exceeded'],
}

const reasonOf = (code: Code): string =>
  Object.entries(REASONS).find(([, codes]) => codes.includes(code))?.[0] ?? code

type Method = (this: object, ...args: never[]) => unknown

/**
 * Observes the own streams of one sidecar, until it is told to stop. The first events come from the
 * calls between the rooms; who is let in, and whose stream is over, is read from the audit.
 */
export const traceAdmissions = () => {
  const traces = new Map<Admission, string[]>()
  const byNumber = new Map<number, Admission>()
  const current = new AsyncLocalStorage<Admission>()
  const restores: (() => void)[] = []
  const note = (admission: Admission | undefined, event: string): void => {
    if (admission !== undefined) traces.get(admission)?.push(event)
  }
  const wrap = (owner: object, name: string, around: (original: Method) => Method): void => {
    const original = Reflect.get(owner, name) as Method
    Reflect.set(owner, name, around(original))
    restores.push(() => Reflect.set(owner, name, original))
  }
  /** Notes what a wait of an admission has come to, unless the admission has left it. */
  const settle = (result: unknown, eventOf: (value: unknown) => string): unknown => {
    const admission = current.getStore()
    const tell = (verdict: { readonly ok: boolean; readonly value?: unknown }) => {
      const isOver = admission?.isAborted === true || admission?.state === 'gone'
      if (verdict.ok && !isOver) note(admission, eventOf(verdict.value))
    }
    void (result as Promise<{ readonly ok: boolean }>).then(tell, () => {})
    return result
  }

  wrap(AdmissionRegistry.prototype, 'run', (original) => {
    type Work = (admission: Admission) => unknown
    return function run(this: object, ...args: readonly unknown[]) {
      const [request, work] = args as readonly [unknown, Work]
      const begin: Work = (admission) => {
        if (admission.kind !== 'own') return work(admission)
        traces.set(admission, ['begins'])
        byNumber.set(admission.number, admission)
        return current.run(admission, () => work(admission))
      }
      return Reflect.apply(original, this, [request, begin])
    }
  })
  wrap(TokenAuthenticator.prototype, 'authenticate', (original) => {
    const eventOf = (value: unknown) =>
      (value as { readonly source: string }).source === 'review' ? 'is reviewed' : 'is recalled'
    return function authenticate(this: object, ...args) {
      return settle(Reflect.apply(original, this, args), eventOf)
    }
  })
  wrap(PodBinding.prototype, 'bind', (original) => {
    return function bind(this: object, ...args) {
      return settle(Reflect.apply(original, this, args), () => 'is bound')
    }
  })
  wrap(Admission.prototype, 'revoke', (original) => {
    return function revoke(this: object, ...args: readonly unknown[]) {
      const admission = this as Admission
      const isNews = admission.state === 'pending' || admission.state === 'admitted'
      if (isNews) note(admission, `is revoked: ${reasonOf(args[0] as Code)}`)
      return Reflect.apply(original, this, args)
    }
  })
  wrap(Admission.prototype, 'finish', (original) => {
    return function finish(this: object, ...args) {
      const admission = this as Admission
      // The end of a stream is read from the audit.
      const isPending = admission.state !== 'gone' && admission.admittedAt === undefined
      if (isPending) note(admission, 'ends')
      return Reflect.apply(original, this, args)
    }
  })
  wrap(Audit.prototype, 'write', (original) => {
    return function write(this: object, ...args: readonly unknown[]) {
      const { event, streamId } = args[0] as { readonly event: string; readonly streamId?: string }
      const admission = byNumber.get(Number(streamId?.split('-').at(-1)))
      if (event === 'k8s-auth-success') note(admission, 'is admitted')
      if (event === 'k8s-session-closed') note(admission, 'ends')
      return Reflect.apply(original, this, args)
    }
  })
  return {
    /** The events of each admission so far, in order. */
    list: (): readonly (readonly string[])[] => [...traces.values()],
    stop: (): void => {
      for (const restore of restores.toReversed()) restore()
    },
  }
}
