/** The line: everything a worker has to pass, in order, before a byte of it reaches the gateway. */

import type { Precheck } from '../authn/precheck.ts'
import type { SignatureState } from '../authn/signature.ts'
import type { Vouched, Voucher } from '../authn/authenticator.ts'
import type { Caller, PodBinding } from '../authz/pod-binding.ts'
import type { Grant, Policy } from '../authz/policy.ts'
import { raceAbort } from '../lib/deadline.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import type { GatewaySide, Handshake } from '../dialect/dialect.ts'
import { Fault } from '../fault.ts'
import type { Claims, Identity } from '../identity.ts'
import type { Trail } from '../observe/recorder.ts'
import type { Entry, Streams } from '../admissions/registry.ts'
import type { Worker } from './worker.ts'

/** The stages of the line that the edge does not own. */
export type Line = {
  readonly precheck: Precheck
  readonly streams: Streams
  /** The verdict cache and the TokenReview behind it. */
  readonly voucher: Pick<Voucher, 'vouch' | 'isStanding'>
  readonly binding: Pick<PodBinding, 'bind' | 'check' | 'findGone'>
  /** As configured now: it may be reloaded while an admission is under way. */
  readonly policy: () => Policy
}

export type Admission = {
  readonly entry: Entry
  readonly identity: Identity
  readonly grant: Grant
  readonly gateway: GatewaySide
}

/** One worker at the beginning of the line. */
export type Arrival = {
  readonly worker: Worker
  readonly handshake: Handshake
  readonly line: Line
  readonly trail: Trail
  /** Whether the pod of a signed token may try once more. */
  readonly mayContinue: (claims: Claims) => boolean
  /** Told once the worker counts as a stream, on a token the cluster has signed. */
  readonly onProven: () => void
  /** Lets the worker into its stream. Called once, in the turn of the last question. */
  readonly release: (admission: Admission) => void
}

/**
 * Leads a worker through the line. Every stage may only refuse or pass on: whatever was not proven
 * to admit, denies. A `Fault` becomes its retryable code here and nowhere else.
 */
export async function admit(arrival: Arrival): Promise<Verdict<Admission>> {
  const { worker, handshake, trail } = arrival
  try {
    // What is shown at the upgrade is proven before the WebSocket opens.
    const early = worker.token === undefined ? undefined : await precheck(worker.token, arrival)
    if (early?.ok === false) return early

    const introduction = await handshake.introduce()
    if (!introduction.ok) return introduction
    const { token, role } = introduction.value
    if (token !== (worker.token ?? token)) return denied('credential_mismatch')

    const prechecked = early ?? (await precheck(token, arrival))
    if (!prechecked.ok) return prechecked
    const { signature } = prechecked.value

    const entry = register(prechecked.value, arrival)
    if (!entry.ok) return entry
    return await admitPrechecked({ ...arrival, token, role, signature, entry: entry.value })
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    trail.fault = error
    return denied(error.code)
  }
}

type Prechecked = { readonly claims: Claims; readonly signature: SignatureState }

/** Shape, claims, signature: everything that costs the API server nothing. */
async function precheck(
  token: string,
  { worker, line, trail, mayContinue }: Arrival,
): Promise<Verdict<Prechecked>> {
  trail.hasCredential = true
  const claims = line.precheck.read(token)
  if (!claims.ok) return claims
  trail.claimed = claims.value

  const signature = await line.precheck.verify(token, worker.address, claims.value)
  if (!signature.ok) return signature
  if (signature.value === 'verified') {
    trail.isSigned = true
    if (!mayContinue(claims.value)) return denied('rate_limited')
  }
  return granted({ claims: claims.value, signature: signature.value })
}

const register = ({ claims, signature }: Prechecked, { line, worker }: Arrival): Verdict<Entry> =>
  signature === 'verified'
    ? line.streams.begin(claims, worker.address)
    : line.streams.beginUnverified(claims, worker.address)

type Begun = Arrival & {
  readonly token: string
  readonly role: string | undefined
  readonly signature: SignatureState
  readonly entry: Entry
}

/** The rest of the line, which a revocation of `entry` cuts short at any of its waits. */
async function admitPrechecked(begun: Begun): Promise<Verdict<Admission>> {
  const { worker, entry, signature } = begun
  if (signature === 'verified') begun.onProven()
  worker.onGone = (code) => entry.revoke(code)
  let admission: Verdict<Admission> | undefined
  try {
    if (worker.gone !== undefined) return denied(worker.gone)
    admission = await proveAndReach(begun)
    return admission
  } catch (error) {
    const isOfAbort = error instanceof Fault || error === entry.signal.reason
    if (entry.isAborted && isOfAbort) return denied(entry.code)
    throw error
  } finally {
    if (admission?.ok !== true) entry.finish()
  }
}

async function proveAndReach(begun: Begun): Promise<Verdict<Admission>> {
  const { worker, handshake, line, trail, token, role, signature, entry } = begun
  const { signal, claims } = entry
  const caller = { claims, address: worker.address }

  const gone = line.binding.findGone(claims)
  if (gone !== undefined) return denied(gone)

  const vouched = await raceAbort(line.voucher.vouch(token, claims, signature), signal)
  if (!vouched.ok) return vouched
  const { identity, by } = vouched.value
  trail.identity = identity
  const unproven = signature === 'verified' ? undefined : prove(begun)
  if (unproven !== undefined) return denied(unproven)

  const isOutageTolerated = by === 'cache' || by === 'local'
  const bound = await raceAbort(line.binding.bind(caller, isOutageTolerated), signal)
  if (!bound.ok) return bound

  const grant = line.policy().authorize(identity, role)
  if (!grant.ok) return grant
  trail.role = grant.value.role

  const revoke = (code: Code) => entry.revoke(code)
  const allowedCommands = commandsInForce(line, identity, grant.value.role)
  const gateway = await handshake.reach({
    identity,
    ...grant.value,
    allowedCommands,
    signal,
    revoke,
  })

  // Nothing may be awaited between these last questions and the release.
  const objection = findLateObjection(begun, { caller, identity, by, grant: grant.value })
  if (objection !== undefined || !entry.admit(grant.value.role)) {
    gateway.socket.destroy()
    return denied(objection ?? entry.code)
  }
  const admission = { entry, identity, grant: grant.value, gateway }
  begun.release(admission)
  return granted(admission)
}

/** The cluster has said what our keys could not: from here on it is as if the signature held. */
function prove({ entry, line, trail, mayContinue, onProven }: Begun): Code | undefined {
  trail.isSigned = true
  if (!mayContinue(entry.claims)) return 'rate_limited'
  const counted = line.streams.confirm(entry)
  if (!counted.ok) return counted.code
  onProven()
  return undefined
}

/** Nothing is allowed to those whom the policy in force refuses. */
function commandsInForce(line: Line, identity: Identity, role: string) {
  return (): readonly string[] => {
    const grant = line.policy().authorize(identity, role)
    return grant.ok ? grant.value.allowedCommands : []
  }
}

type Proven = {
  readonly caller: Caller
  readonly identity: Identity
  readonly by: Vouched['by']
  readonly grant: Grant
}

/** What may have changed while the gateway was reached: the rules, the pod, the policy. */
function findLateObjection(
  { line, handshake }: Arrival,
  { caller, identity, by, grant }: Proven,
): Code | undefined {
  const judged = line.precheck.judge(caller.claims)
  if (!judged.ok) return judged.code
  if (!line.voucher.isStanding(by)) return 'review_unavailable'
  const bound = line.binding.check(caller)
  if (!bound.ok) return bound.code
  const renewed = line.policy().authorize(identity, grant.role)
  return renewed.ok ? handshake.findObjection() : renewed.code
}
