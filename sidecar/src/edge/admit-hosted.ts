/** The admission line of session hosting: a request proves its pod, which must have a live stream. */

import type { Admission, AdmissionKind } from '../admissions/admission.ts'
import type { AdmissionRegistry } from '../admissions/registry.ts'
import type { Source } from '../authn/authenticator.ts'
import type { SignatureState } from '../authn/signature.ts'
import type { AddressProof } from '../authz/address-proof.ts'
import type { Belief } from '../authz/belief.ts'
import type { Caller } from '../authz/pod-binding.ts'
import { denied, granted, type Code, type Denied, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import { identityOf, type Claims, type Identity } from '../identity.ts'
import { raceAbort } from '../lib/deadline.ts'
import type { AuthAttempt } from '../observe/recorder.ts'
import {
  begin,
  confirm,
  confirmLate,
  precheck,
  OUTAGE_TOLERATED,
  type EntrantSide,
  type Stages,
} from './admit.ts'

export type HostedStages = Omit<Stages, 'registry'> & {
  readonly registry: Pick<AdmissionRegistry, 'run' | 'confirm' | 'findOwn'>
  readonly proveAddress: AddressProof
  /** Whether the gateway would take this address for one of its own host. */
  readonly isLocalAddress: (address: string) => boolean
}

export type AdmittedHosted<G> = {
  readonly admission: Admission
  readonly identity: Identity
  readonly role: string
  readonly gateway: G
}

/** One request at the start of the line. `G` is what it needs of the gateway before its release. */
export type AdmitHostedRequest<G> = {
  readonly worker: EntrantSide
  readonly kind: AdmissionKind
  readonly stages: HostedStages
  readonly attempt: AuthAttempt
  readonly mayContinue: (claims: Claims) => boolean
  readonly onProven: () => void
  readonly connect: (signal: AbortSignal) => Promise<G>
  /** Whether the gateway has left what `connect` returned. */
  readonly isGone: (gateway: G) => boolean
  /** Gives up what `connect` returned. */
  readonly disconnect: (gateway: G) => void
  /** Called before a request is refused whose pod is proven; it counts as a stream meanwhile. */
  readonly beforeRefusal: (admission: Admission) => Promise<void>
  readonly release: (admitted: AdmittedHosted<G>) => void
}

/** How a request proves its pod: by a token, or by the address that only this pod has. */
type Proof = {
  readonly claims: Claims
  readonly signature: SignatureState
  readonly token: string | undefined
}

/** Leads a request through the line. Without proof the answer is no. */
export async function admitHosted<G>(
  request: AdmitHostedRequest<G>,
): Promise<Verdict<AdmittedHosted<G>>> {
  const { worker, kind, stages, attempt } = request
  const { address } = worker
  attempt.hasCredential = true
  try {
    if (stages.isLocalAddress(address)) return denied('source_address_local')
    const proof = worker.token === undefined ? proveByAddress(request) : await proveByToken(request)
    if (!proof.ok) return proof
    const { claims, signature } = proof.value
    // From here on a revocation aborts any of these waits.
    return await stages.registry.run({ claims, address, signature, kind }, (admission) =>
      decide(request, proof.value, admission),
    )
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    attempt.fault = error
    return denied(error.code)
  }
}

async function proveByToken<G>(request: AdmitHostedRequest<G>): Promise<Verdict<Proof>> {
  const { token = '' } = request.worker
  const checked = await precheck(token, request)
  return checked.ok ? granted({ ...checked.value, token }) : checked
}

/** The claims are those of the pod's own stream, which a TokenReview has proven. */
function proveByAddress<G>({
  worker,
  stages,
  attempt,
  mayContinue,
}: AdmitHostedRequest<G>): Verdict<Proof> {
  const pod = stages.proveAddress(worker.address)
  if (pod === undefined) return denied('session_hosting_unproven')
  const own = stages.registry.findOwn(pod.uid)
  if (own === undefined) return denied('session_hosting_no_stream')
  const { claims } = own
  attempt.signed = claims
  if (!mayContinue(claims)) return denied('rate_limited')
  return granted({ claims, signature: 'verified', token: undefined })
}

async function decide<G>(
  request: AdmitHostedRequest<G>,
  { claims, signature, token }: Proof,
  admission: Admission,
): Promise<Verdict<AdmittedHosted<G>>> {
  const { stages, attempt } = request
  const { signal } = admission
  const gone = begin(admission, signature, request)
  if (gone !== undefined) return denied(gone)

  const authenticated = await authenticate(request, { claims, signature, token }, signal)
  if (!authenticated.ok) return authenticated
  const { identity, source } = authenticated.value
  attempt.identity = identity
  const unproven = signature === 'verified' ? undefined : confirm(admission, request)
  if (unproven !== undefined) return denied(unproven)

  const caller = callerOf(request, claims)
  const bound = await raceAbort(stages.binding.bind(caller, isOutageTolerated(source)), signal)
  if (!bound.ok) return bound
  const proven = { claims, identity, source, believedUntil: bound.value }
  const objection = findHostingObjection(request, proven)
  if (objection !== undefined) return refuse(request, admission, objection)
  return enter(request, proven, admission)
}

/** Reaches the gateway for a request whose pod is proven, and lets it through. */
async function enter<G>(
  request: AdmitHostedRequest<G>,
  proven: Proven,
  admission: Admission,
): Promise<Verdict<AdmittedHosted<G>>> {
  const { stages } = request
  const { claims, identity, source, believedUntil } = proven
  const { signal } = admission
  const gateway = await request.connect(signal)

  const caller = callerOf(request, claims)
  if (stages.binding.isOutdated(caller, believedUntil)) {
    const asked = stages.binding.confirm(caller, believedUntil, isOutageTolerated(source))
    const refused = await confirmLate(raceAbort(asked, signal), {
      isGone: () => request.isGone(gateway),
      end: () => request.disconnect(gateway),
    })
    if (refused !== undefined) return refuse(request, admission, refused)
  }

  // No `await` is allowed between these last checks and the release.
  const own = stages.registry.findOwn(claims.podUid)
  const role = own?.role ?? ''
  const late = findLateObjection(request, proven)
  // It is there for what the own stream offers, and ends with the right to offer it.
  admission.judgeBy(() => own?.findOfferEnd())
  if (late !== undefined || !admission.admit(role)) {
    request.disconnect(gateway)
    return refuse(request, admission, late ?? admission.code)
  }
  const admitted = { admission, identity, role, gateway }
  request.release(admitted)
  return granted(admitted)
}

/** What a TokenReview has said of the pod's own stream holds for a proof by its address. */
async function authenticate<G>(
  { stages }: AdmitHostedRequest<G>,
  { claims, signature, token }: Proof,
  signal: AbortSignal,
): Promise<Verdict<Pick<Proven, 'identity' | 'source'>>> {
  if (token === undefined) return granted({ identity: identityOf(claims), source: undefined })
  return raceAbort(stages.authenticator.authenticate(token, claims, signature), signal)
}

/** The pod is proven, so the request may be read to its end. */
async function refuse<G>(
  request: AdmitHostedRequest<G>,
  admission: Admission,
  code: Code,
): Promise<Denied> {
  await request.beforeRefusal(admission)
  return denied(code)
}

/** The address alone proves nothing while the API server cannot be asked about a silent watch. */
const isOutageTolerated = (source: Source | undefined): boolean =>
  source !== undefined && OUTAGE_TOLERATED.has(source)

type Proven = {
  readonly claims: Claims
  readonly identity: Identity
  /** `undefined` for the proof by address. */
  readonly source: Source | undefined
  readonly believedUntil: Belief
}

/** The pod must have a live stream, in a role whose entry allows hosting. Synchronous. */
function findHostingObjection<G>(
  { stages, attempt }: AdmitHostedRequest<G>,
  { claims, identity }: Proven,
): Code | undefined {
  const role = stages.registry.findOwn(claims.podUid)?.role
  if (role === undefined) return 'session_hosting_no_stream'
  attempt.role = role
  const grant = stages.policy().authorize(identity, role)
  if (!grant.ok) return grant.code
  return grant.value.isHostingAllowed ? undefined : 'session_hosting_not_allowed'
}

/** What may have changed during the waits: the rules, the pod, its stream, the policy. */
function findLateObjection<G>(request: AdmitHostedRequest<G>, proven: Proven): Code | undefined {
  const { stages } = request
  const { claims, source } = proven
  const objection =
    source === undefined
      ? findAddressObjection(request, claims)
      : findTokenObjection(request, claims, source)
  if (objection !== undefined) return objection
  const bound = stages.binding.check(callerOf(request, claims))
  return bound.ok ? findHostingObjection(request, proven) : bound.code
}

/** A terminating pod may finish its turns for as long as its own stream lives. */
const callerOf = <G>({ worker, stages }: AdmitHostedRequest<G>, claims: Claims): Caller => ({
  claims,
  address: worker.address,
  mayFinish: stages.registry.findOwn(claims.podUid) !== undefined,
})

function findTokenObjection<G>(
  { stages }: AdmitHostedRequest<G>,
  claims: Claims,
  source: Source,
): Code | undefined {
  const judged = stages.precheck.judge(claims)
  if (!judged.ok) return judged.code
  return stages.authenticator.isStanding(source, claims) ? undefined : 'review_unavailable'
}

function findAddressObjection<G>(
  { worker, stages }: AdmitHostedRequest<G>,
  { podUid }: Claims,
): Code | undefined {
  const isProven = stages.proveAddress(worker.address)?.uid === podUid
  return isProven ? undefined : 'session_hosting_unproven'
}
