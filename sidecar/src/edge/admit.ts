/** The admission line: the checks a worker passes, in order, before a byte reaches the gateway. */

import type { Admission } from '../admissions/admission.ts'
import type { AdmissionRegistry } from '../admissions/registry.ts'
import type { Source, TokenAuthenticator } from '../authn/authenticator.ts'
import type { ClaimsVerdict } from '../authn/claims.ts'
import type { Precheck } from '../authn/precheck.ts'
import type { SignatureState } from '../authn/signature.ts'
import type { Belief } from '../authz/belief.ts'
import type { PodBinding } from '../authz/pod-binding.ts'
import type { Grant, Policy } from '../authz/policy.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import type { Handshake } from '../dialect/dialect.ts'
import { Fault } from '../fault.ts'
import type { Claims, Identity } from '../identity.ts'
import { raceAbort } from '../lib/deadline.ts'
import type { AuthAttempt } from '../observe/recorder.ts'
import type { GatewayConnection } from '../tunnel/dial.ts'
import type { Entrant } from './entrant.ts'
import type { Worker } from './worker.ts'

/** The stages of the line that other rooms own. */
export type Stages = {
  readonly precheck: Precheck
  readonly registry: Pick<AdmissionRegistry, 'run' | 'confirm'>
  /** The verdict cache and the TokenReview behind it. */
  readonly authenticator: Pick<TokenAuthenticator, 'authenticate' | 'isStanding'>
  readonly binding: Pick<PodBinding, 'bind' | 'isOutdated' | 'confirm' | 'check' | 'findGone'>
  /** The current policy: it may be reloaded during an admission. */
  readonly policy: () => Policy
}

export type Admitted = {
  readonly admission: Admission
  readonly identity: Identity
  readonly grant: Grant
  readonly gateway: GatewayConnection
}

/** An entrant as far as the line needs it. */
export type EntrantSide = Pick<Entrant, 'address' | 'token' | 'abortCode' | 'onGone'>

/** What the stages before the TokenReview need of a request for admission. */
type EntryRequest = Pick<AdmitRequest, 'attempt' | 'mayContinue' | 'onProven'> & {
  readonly worker: EntrantSide
  readonly stages: Pick<Stages, 'precheck' | 'binding'> & {
    readonly registry: Pick<AdmissionRegistry, 'confirm'>
  }
}

/** One worker at the start of the line. */
export type AdmitRequest = {
  readonly worker: Worker
  readonly handshake: Handshake
  readonly stages: Stages
  readonly attempt: AuthAttempt
  /** Whether the pod of a signed token may continue. */
  readonly mayContinue: (claims: Claims) => boolean
  /**
   * Called once the worker counts as a stream, after its token is proven to be signed by the
   * cluster.
   */
  readonly onProven: () => void
  /** Lets the worker into its stream. Called once, in the same turn as the last check. */
  readonly release: (admitted: Admitted) => void
}

/**
 * Leads a worker through the line. Every stage can only refuse or pass on: without proof the answer
 * is no. A `Fault` becomes its retryable code here and nowhere else.
 */
export async function admit(request: AdmitRequest): Promise<Verdict<Admitted>> {
  const { worker, handshake, stages, attempt } = request
  const { address } = worker
  try {
    // A token from the upgrade is checked before the WebSocket opens.
    const early = worker.token === undefined ? undefined : await precheck(worker.token, request)
    if (early?.ok === false) return early

    const presented = await handshake.readCredential()
    if (!presented.ok) return presented
    const { token, role } = presented.value
    if (token !== (worker.token ?? token)) return denied('credential_mismatch')

    const checked = early ?? (await precheck(token, request))
    if (!checked.ok) return checked
    const { claims, signature } = checked.value

    // From here on a revocation aborts any of these waits.
    return await stages.registry.run({ claims, address, signature }, async (admission) => {
      const { signal } = admission
      const gone = begin(admission, signature, request)
      if (gone !== undefined) return denied(gone)

      const authenticated = await raceAbort(
        stages.authenticator.authenticate(token, claims, signature),
        signal,
      )
      if (!authenticated.ok) return authenticated
      const { identity, source } = authenticated.value
      attempt.identity = identity
      const unproven = signature === 'verified' ? undefined : confirm(admission, request)
      if (unproven !== undefined) return denied(unproven)

      const bound = await raceAbort(
        stages.binding.bind({ claims, address }, OUTAGE_TOLERATED.has(source)),
        signal,
      )
      if (!bound.ok) return bound

      const authorized = stages.policy().authorize(identity, role)
      if (!authorized.ok) return authorized
      const grant = authorized.value
      attempt.role = grant.role
      const proven = { claims, identity, source, grant, believedUntil: bound.value }
      return enter(request, proven, admission)
    })
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    attempt.fault = error
    return denied(error.code)
  }
}

/** Reaches the gateway for a worker that is proven, and lets it in. */
async function enter(
  request: AdmitRequest,
  proven: Proven,
  admission: Admission,
): Promise<Verdict<Admitted>> {
  const { worker, handshake, stages } = request
  const { claims, identity, source, grant, believedUntil } = proven
  const { signal } = admission
  const gateway = await handshake.connectGateway({
    identity,
    role: grant.role,
    // If the policy in force refuses the worker, it allows no command and no hosting.
    allowedCommands: () => grantInForce(stages, proven)?.allowedCommands ?? [],
    isHostingAllowed: () => grantInForce(stages, proven)?.isHostingAllowed === true,
    signal,
    findObjection: () => findLateObjection(request, proven),
    revoke: (code) => admission.revoke(code),
    judgeBy: (findEnd) => admission.judgeBy(findEnd),
  })
  const { socket } = gateway

  const caller = { claims, address: worker.address }
  if (stages.binding.isOutdated(caller, believedUntil)) {
    const asked = stages.binding.confirm(caller, believedUntil, OUTAGE_TOLERATED.has(source))
    const held = { isGone: () => socket.destroyed, end: () => void socket.destroy() }
    const refused = await confirmLate(raceAbort(asked, signal), held)
    if (refused !== undefined) return denied(refused)
  }

  // No `await` is allowed between these last checks and the release.
  const objection = findLateObjection(request, proven) ?? handshake.findObjection()
  if (objection !== undefined || !admission.admit(grant.role)) {
    socket.destroy()
    return denied(objection ?? admission.code)
  }
  const admitted = { admission, identity, grant, gateway }
  request.release(admitted)
  return granted(admitted)
}

/** What is open at the gateway while somebody waits. */
type Held = { readonly isGone: () => boolean; readonly end: () => void }

/**
 * The gateway took its time, and behind a silent watch the pod was asked for once more. Returns why it
 * must stay out. Unless it may go on, nothing stays open at the gateway.
 */
export async function confirmLate(
  asked: Promise<Verdict<Belief>>,
  { isGone, end }: Held,
): Promise<Code | undefined> {
  try {
    const confirmed = await asked
    if (confirmed.ok && !isGone()) return undefined
    end()
    return confirmed.ok ? 'gateway_gone' : confirmed.code
  } catch (error) {
    end()
    throw error
  }
}

/** Verdicts that are enough while the API server cannot be asked about the pod. */
export const OUTAGE_TOLERATED: ReadonlySet<Source> = new Set(['cache', 'local'])

type Prechecked = { readonly claims: Claims; readonly signature: SignatureState }

/** Shape, claims, signature: every check that costs the API server nothing. */
export async function precheck(
  token: string,
  { worker, stages, attempt, mayContinue }: Omit<EntryRequest, 'onProven'>,
): Promise<Verdict<Prechecked>> {
  attempt.hasCredential = true
  const claims = await readClaims(token, stages.precheck)
  attempt.claimed = claims.ok ? claims.value : claims.claimed
  if (!claims.ok) return denied(claims.code)

  const signature = await stages.precheck.verify(token, worker.address, claims.value)
  if (!signature.ok) return signature
  if (signature.value === 'verified') {
    attempt.signed = claims.value
    if (!mayContinue(claims.value)) return denied('rate_limited')
  }
  return granted({ claims: claims.value, signature: signature.value })
}

/** An issuer that is not accepted may be the cluster's new one: only an answer that it is not refuses. */
async function readClaims(token: string, stage: Stages['precheck']): Promise<ClaimsVerdict> {
  const claims = stage.read(token)
  if (claims.ok || claims.code !== 'issuer_not_allowed') return claims
  const code = await stage.renewIssuer(claims.claimed?.issuer ?? '')
  return code === undefined ? stage.read(token) : { ...claims, code }
}

/**
 * Ties the worker to its admission; returns a code if its pod or ServiceAccount is known to be
 * gone.
 */
export function begin(
  admission: Admission,
  signature: SignatureState,
  { worker, stages, onProven }: EntryRequest,
): Code | undefined {
  if (signature === 'verified') onProven()
  worker.onGone = (code) => admission.revoke(code)
  return worker.abortCode ?? stages.binding.findGone(admission.claims)
}

/** The cluster has confirmed what our keys could not: from here on the token counts as verified. */
export function confirm(
  admission: Admission,
  { stages, attempt, mayContinue, onProven }: EntryRequest,
): Code | undefined {
  attempt.signed = admission.claims
  if (!mayContinue(admission.claims)) return 'rate_limited'
  const confirmed = stages.registry.confirm(admission)
  if (!confirmed.ok) return confirmed.code
  onProven()
  return undefined
}

type Proven = {
  readonly claims: Claims
  readonly identity: Identity
  readonly source: Source
  readonly grant: Grant
  readonly believedUntil: Belief
}

/** What the current policy gives the worker; `undefined` if it refuses it. */
function grantInForce(
  { policy }: Pick<Stages, 'policy'>,
  { identity, grant }: Pick<Proven, 'identity' | 'grant'>,
): Grant | undefined {
  const renewed = policy().authorize(identity, grant.role)
  return renewed.ok ? renewed.value : undefined
}

/** What may have changed while the gateway was being dialed: the rules, the pod, the policy. */
function findLateObjection(
  { worker, stages }: AdmitRequest,
  { claims, identity, source, grant }: Proven,
): Code | undefined {
  const judged = stages.precheck.judge(claims)
  if (!judged.ok) return judged.code
  if (!stages.authenticator.isStanding(source, claims)) return 'review_unavailable'
  const bound = stages.binding.check({ claims, address: worker.address })
  if (!bound.ok) return bound.code
  const renewed = stages.policy().authorize(identity, grant.role)
  return renewed.ok ? undefined : renewed.code
}
