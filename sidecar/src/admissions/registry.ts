/** The registry of pending admissions and live streams: caps, revocation, heartbeat, drain. */

import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import type { SignatureState } from '../authn/signature.ts'
import type { Claims } from '../identity.ts'
import type { RelayTotals } from '../lib/relay-totals.ts'
import { Admission } from './admission.ts'
import { UnverifiedAdmissions } from './unverified-admissions.ts'

/** Who asks to be admitted: the claims of a token, and where it was shown. */
export type AdmissionRequest = {
  readonly claims: Claims
  readonly address: string
  /** An admission whose signature could not be checked waits in a pool of its own. */
  readonly signature: SignatureState
}

export type AdmissionRegistryOptions = {
  /** Pending admissions and live streams together, at most. */
  readonly streamsMax: number
  /** The same for one pod. */
  readonly streamsPerPodMax: number
  readonly clock: Clock
}

/** What a drain did. */
export type Drained = {
  /** Streams that it ended. */
  readonly streams: number
}

/** A drain gives each stream so much of the loop's time, in milliseconds, however short its window. */
const DRAINED_MS_MIN = 0.2
/** The heartbeat visits the streams in this many slices a period, so that pings do not come in bursts. */
const HEARTBEAT_SLICES = 20

export class AdmissionRegistry {
  readonly #options: AdmissionRegistryOptions
  readonly #admissions = new Set<Admission>()
  readonly #admissionsOfPod = new Map<string, Set<Admission>>()
  readonly #unverified = new UnverifiedAdmissions()
  #begun = 0
  #draining: Promise<Drained> | undefined
  #onEmpty: (() => void) | undefined

  constructor(options: AdmissionRegistryOptions) {
    this.#options = options
  }

  /** Pending admissions and live streams; those nobody has vouched for yet are not among them. */
  get size(): number {
    return this.#admissions.size
  }

  /** What the live streams have carried so far. */
  *listCounts(): Iterable<RelayTotals> {
    for (const { counts } of this.#admissions) if (counts !== undefined) yield counts
  }

  /**
   * Runs one admission: `work` asks what is left to ask and lets the worker in. From here on the
   * admission can be revoked, which aborts its `signal`; what that makes `work` throw becomes the
   * code of the revocation. It is over at once unless `work` let the worker in.
   */
  async run<T>(
    { claims, address, signature }: AdmissionRequest,
    work: (admission: Admission) => Promise<Verdict<T>>,
  ): Promise<Verdict<T>> {
    const begun =
      signature === 'verified' ? this.begin(claims, address) : this.beginUnverified(claims, address)
    if (!begun.ok) return begun
    const admission = begun.value
    let outcome: Verdict<T> | undefined
    try {
      outcome = await work(admission)
      return outcome
    } catch (error) {
      const isOfAbort = error instanceof Fault || error === admission.signal.reason
      if (admission.isAborted && isOfAbort) return denied(admission.code)
      throw error
    } finally {
      if (outcome?.ok !== true) admission.finish()
    }
  }

  /** Registers an admission whose signature holds. */
  begin(claims: Claims, address: string): Verdict<Admission> {
    const full = this.#findFull(claims)
    if (full !== undefined) return denied(full)
    return granted(this.#count(this.#create(claims, address)))
  }

  /**
   * Registers an admission whose signature nobody could check. It can be revoked like any other,
   * but takes no place of a stream, nor of the pod it names: anybody can name one.
   */
  beginUnverified(claims: Claims, address: string): Verdict<Admission> {
    if (this.#draining !== undefined) return denied('draining')
    if (!this.#unverified.hasRoom(address)) return denied('keys_unavailable')
    const admission = this.#create(claims, address)
    this.#unverified.add(admission)
    return granted(admission)
  }

  /** The cluster has proven the claims of an unverified admission: it takes its places now. */
  confirm(admission: Admission): Verdict<Admission> {
    const full = this.#findFull(admission.claims)
    if (full !== undefined) return denied(full)
    this.#unverified.delete(admission)
    return granted(this.#count(admission))
  }

  #findFull({ podUid }: Claims): Code | undefined {
    const { streamsMax, streamsPerPodMax } = this.#options
    if (this.#draining !== undefined) return 'draining'
    if (this.#admissions.size >= streamsMax) return 'too_many_streams'
    const ofPod = this.#admissionsOfPod.get(podUid)?.size ?? 0
    return ofPod >= streamsPerPodMax ? 'too_many_streams_of_pod' : undefined
  }

  #create(claims: Claims, address: string): Admission {
    this.#begun += 1
    const { clock } = this.#options
    const admission: Admission = new Admission(
      { number: this.#begun, claims, address, clock },
      () => this.#forget(admission),
    )
    return admission
  }

  #count(admission: Admission): Admission {
    const { podUid } = admission.claims
    const ofPod = this.#admissionsOfPod.get(podUid) ?? new Set<Admission>()
    this.#admissionsOfPod.set(podUid, ofPod.add(admission))
    this.#admissions.add(admission)
    return admission
  }

  /** Of a pod, or of all: what may still become a stream, and what is one. */
  *#list(podUid?: string): Iterable<Admission> {
    yield* podUid === undefined ? this.#admissions : (this.#admissionsOfPod.get(podUid) ?? [])
    for (const admission of this.#unverified) {
      if (podUid === undefined || admission.claims.podUid === podUid) yield admission
    }
  }

  revokePod(podUid: string, code: Code): void {
    for (const admission of this.#list(podUid)) admission.revoke(code)
  }

  /** Aborts the admissions of a pod that are still under way; its streams go on. */
  revokePending(podUid: string, code: Code): void {
    for (const admission of this.#list(podUid)) {
      if (admission.state === 'pending') admission.revoke(code)
    }
  }

  /** Asks of a pod's entries why they should end, and ends those that have to. */
  reviewPod(podUid: string, findEnd: (admission: Admission) => Code | undefined): void {
    for (const admission of this.#admissionsOfPod.get(podUid) ?? []) {
      const code = findEnd(admission)
      if (code !== undefined) admission.revoke(code)
    }
  }

  /** Asks of every entry why it should end, and ends those that have to. */
  review(findEnd: (admission: Admission) => Code | undefined): void {
    for (const admission of this.#list()) {
      const code = findEnd(admission)
      if (code !== undefined) admission.revoke(code)
    }
  }

  /**
   * Revokes everything with `draining`, spread evenly over `windowMs` so that the workers do not
   * come back all at once, and resolves when the last one is gone. What is left `graceMs` after
   * the window is destroyed. Nothing begins any more, not even for workers that were at the door. A
   * second call waits for the first.
   */
  drain(windowMs: number, graceMs: number): Promise<Drained> {
    this.#draining ??= this.#drainOnce(windowMs, graceMs)
    return this.#draining
  }

  async #drainOnce(windowMs: number, graceMs: number): Promise<Drained> {
    const { clock } = this.#options
    const admissions = [...this.#list()]
    const spreadMs = Math.max(windowMs, admissions.length * DRAINED_MS_MIN)
    const cancels = admissions.map((admission, index) =>
      clock.after((spreadMs * index) / admissions.length, () => admission.revoke('draining')),
    )
    cancels.push(clock.after(spreadMs + graceMs, () => this.destroyAll()))
    await new Promise<void>((resolve) => {
      this.#onEmpty = resolve
      if (this.#isEmpty) resolve()
    })
    for (const cancel of cancels) cancel()
    return { streams: admissions.filter(({ admittedAt }) => admittedAt !== undefined).length }
  }

  /** Drops all sockets at once, without close frames, and aborts what is under way. */
  destroyAll(): void {
    for (const admission of this.#list()) {
      admission.revoke('draining')
      admission.destroy()
    }
  }

  /** Pings silent peers once every `idleMs`. Returns the way to stop. */
  startHeartbeat(idleMs: number): () => void {
    const { clock } = this.#options
    let cancel = () => {}
    let slice = 0
    const beat = () => {
      for (const admission of this.#admissions) {
        if (admission.number % HEARTBEAT_SLICES === slice) admission.ping()
      }
      slice = (slice + 1) % HEARTBEAT_SLICES
      cancel = clock.after(idleMs / HEARTBEAT_SLICES, beat)
    }
    cancel = clock.after(idleMs / HEARTBEAT_SLICES, beat)
    return () => cancel()
  }

  get #isEmpty(): boolean {
    return this.#admissions.size + this.#unverified.size === 0
  }

  #forget(admission: Admission): void {
    this.#unverified.delete(admission)
    const { podUid } = admission.claims
    const ofPod = this.#admissionsOfPod.get(podUid)
    if (this.#admissions.delete(admission)) ofPod?.delete(admission)
    if (ofPod?.size === 0) this.#admissionsOfPod.delete(podUid)
    if (this.#isEmpty) this.#onEmpty?.()
  }
}
