/** Readiness: what has to be true before workers are sent here. */

import type { Drain } from '../admissions/drain.ts'
import type { Jwks } from '../kube/jwks.ts'
import type { PodWatch } from '../kube/pod-watch.ts'

/** What is missing, in words; `undefined` where nothing is. */
type Objection = string | undefined

export type ReadinessCheck = {
  readonly name: string
  readonly check: () => Objection | Promise<Objection>
}

export type ReadinessOptions = {
  readonly drain: Pick<Drain, 'isUnderWay'>
  readonly jwks: Pick<Jwks, 'ageMs'>
  readonly watch: Pick<PodWatch, 'isSynced'>
  /** Without trust nobody is let in, and the cluster is not needed. */
  readonly isTrustEnabled: () => boolean
  readonly checkGateway: () => Promise<Objection>
  /** `undefined` where the dialect has no operator channel. */
  readonly operator: { readonly findObjection: () => Objection } | undefined
}

/** An API server that goes away later does not make the sidecar unready: its streams live on. */
export function createReadiness(options: ReadinessOptions): readonly ReadinessCheck[] {
  const { drain, jwks, watch, isTrustEnabled, checkGateway, operator } = options
  const unless = (isKnown: boolean, objection: string): Objection =>
    isKnown || !isTrustEnabled() ? undefined : objection
  const checks: readonly ReadinessCheck[] = [
    { name: 'serving', check: () => (drain.isUnderWay ? 'draining' : undefined) },
    {
      name: 'jwks',
      check: () => unless(jwks.ageMs !== undefined, 'no signing keys have been fetched yet'),
    },
    { name: 'pods', check: () => unless(watch.isSynced, 'pods have not been listed yet') },
    { name: 'gateway', check: checkGateway },
  ]
  if (operator === undefined) return checks
  return [...checks, { name: 'operator', check: () => operator.findObjection() }]
}
