/** The line: everything a worker has to pass, in order, before a byte of it reaches the gateway. */

import type { Precheck } from '../authn/precheck.ts'
import type { VerdictCache } from '../authn/verdict-cache.ts'
import type { Grant, Policy } from '../authz/policy.ts'
import { raceAbort } from '../deadline.ts'
import { denied, granted, type Verdict } from '../denial.ts'
import type { GatewaySide, Handshake, Introduction } from '../dialect/dialect.ts'
import { Fault } from '../fault.ts'
import type { Identity } from '../identity.ts'
import type { Trail } from '../observe/recorder.ts'
import type { Entry, Streams } from '../tunnel/streams.ts'
import type { Worker } from './worker.ts'

/** The stages of the line that the edge does not own. */
export type Line = {
  readonly precheck: Precheck
  readonly streams: Streams
  readonly verdicts: Pick<VerdictCache, 'find'>
  /** As configured now: it may be reloaded while an admission is under way. */
  readonly policy: () => Policy
}

export type Admission = {
  readonly entry: Entry
  readonly identity: Identity
  readonly grant: Grant
  readonly gateway: GatewaySide
}

/**
 * Leads a worker through the line. Every stage may only refuse or pass on: whatever was not proven
 * to admit, denies. A `Fault` becomes its retryable code here and nowhere else.
 */
export async function admit(
  worker: Worker,
  handshake: Handshake,
  line: Line,
  trail: Trail,
): Promise<Verdict<Admission>> {
  try {
    const introduction = await handshake.introduce()
    if (!introduction.ok) return introduction
    trail.hasCredential = true

    const claims = line.precheck.read(introduction.value.token)
    if (!claims.ok) return claims
    trail.claimed = claims.value

    const signature = await line.precheck.verify(introduction.value.token, worker.address)
    if (!signature.ok) return signature
    trail.isSigned = true

    const entry = line.streams.begin(claims.value)
    if (!entry.ok) return entry
    const signed = { handshake, introduction: introduction.value, line, trail, entry: entry.value }
    return await admitSigned(worker, signed)
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    trail.fault = error
    return denied(error.code)
  }
}

type Signed = {
  readonly handshake: Handshake
  readonly introduction: Introduction
  readonly line: Line
  readonly trail: Trail
  readonly entry: Entry
}

/** The rest of the line, which a revocation of `entry` cuts short at any of its waits. */
async function admitSigned(worker: Worker, signed: Signed): Promise<Verdict<Admission>> {
  const { entry } = signed
  worker.onGone = (code) => entry.revoke(code)
  let admission: Verdict<Admission> | undefined
  try {
    if (worker.gone !== undefined) return denied(worker.gone)
    admission = await proveAndReach(signed)
    return admission
  } catch (error) {
    if (entry.signal.aborted) return denied(entry.code)
    throw error
  } finally {
    if (admission?.ok !== true) entry.finish()
  }
}

async function proveAndReach(signed: Signed): Promise<Verdict<Admission>> {
  const { handshake, introduction, line, trail, entry } = signed
  const { token, role: asked } = introduction
  const { signal, claims } = entry

  const identity = await raceAbort(line.verdicts.find(token, claims), signal)
  if (!identity.ok) return identity
  trail.identity = identity.value

  const grant = line.policy().authorize(identity.value, asked)
  if (!grant.ok) return grant
  trail.role = grant.value.role

  const gateway = await handshake.reach({ identity: identity.value, ...grant.value, signal })

  // Nothing may be awaited between this question and the worker's release.
  if (!entry.admit()) {
    gateway.socket.destroy()
    return denied(entry.code)
  }
  return granted({ entry, identity: identity.value, grant: grant.value, gateway })
}
