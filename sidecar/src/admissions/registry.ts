/** The registry of pending admissions and live streams: caps, revocation, heartbeat and drain. */

import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import type { SignatureState } from '../authn/signature.ts'
import type { Claims } from '../identity.ts'
import type { RelayTotals } from '../lib/relay-totals.ts'
import { Admission, type AdmissionKind, type AdmissionListener } from './admission.ts'
import { HostedGrace } from './hosted-grace.ts'
import { UnverifiedAdmissions } from './unverified-admissions.ts'

/** A request for admission: the claims of a token, and the address that presented it. */
export type AdmissionRequest = {
  readonly claims: Claims
  readonly address: string
  /** An admission whose signature could not be checked waits in a separate pool. */
  readonly signature: SignatureState
  /** Default `own`. */
  readonly kind?: AdmissionKind
}

export type AdmissionRegistryOptions = {
  /** The most pending admissions and live streams together. */
  readonly streamsMax: number
  /** The same for one pod. */
  readonly streamsPerPodMax: number
  /** The most hosted streams and transfers of one pod, besides those. Default 0. */
  readonly hostedPerPodMax?: number
  /** The key an address counts under among the unverified. By default an IPv6 network is one. */
  readonly groupOf?: (address: string) => string
  readonly clock: Clock
}

/** What a drain did. */
export type Drained = {
  /** Streams that the drain ended. */
  readonly streams: number
}

/** The least time a drain allows per stream, in milliseconds, however short its window. */
const DRAINED_MS_MIN = 0.2
/**
 * Slices per heartbeat period; each visits some of the streams, so that pings do not come in
 * bursts.
 */
const HEARTBEAT_SLICES = 20

export class AdmissionRegistry {
  readonly #options: AdmissionRegistryOptions
  readonly #admissions = new Set<Admission>()
  readonly #admissionsOfPod = new Map<string, Set<Admission>>()
  readonly #unverified: UnverifiedAdmissions
  readonly #hostedGrace: HostedGrace
  readonly #listener: AdmissionListener = {
    onRevoked: (admission) => this.#hostedGrace.revoked(admission),
    onGone: (admission) => this.#forget(admission),
  }
  #begun = 0
  #draining: Promise<Drained> | undefined
  #onEmpty: (() => void) | undefined

  constructor(options: AdmissionRegistryOptions) {
    this.#options = options
    this.#unverified = new UnverifiedAdmissions(options.groupOf)
    this.#hostedGrace = new HostedGrace({
      listOf: (podUid) => this.#admissionsOfPod.get(podUid) ?? [],
      clock: options.clock,
    })
  }

  /** Pending admissions and live streams, without the unverified admissions. */
  get size(): number {
    return this.#admissions.size
  }

  /** What the live streams have carried so far. */
  *listCounts(): Iterable<RelayTotals> {
    for (const { counts } of this.#admissions) if (counts !== undefined) yield counts
  }

  /** Admissions whose streams are open; the oldest first. */
  *listAdmitted(): Iterable<Admission> {
    for (const admission of this.#admissions) if (admission.state === 'admitted') yield admission
  }

  /** Pods with an admitted worker, by namespace. */
  countWorkers(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>()
    for (const ofPod of this.#admissionsOfPod.values()) {
      const admitted = [...ofPod].find(({ state, kind }) => state === 'admitted' && kind === 'own')
      if (admitted === undefined) continue
      const { namespace } = admitted.claims
      counts.set(namespace, (counts.get(namespace) ?? 0) + 1)
    }
    return counts
  }

  /**
   * Runs one admission: `work` does the remaining checks and lets the worker in. From here on the
   * admission can be revoked, which aborts its `signal`; if `work` throws because of that, the
   * result is the revocation's code. The admission ends at once unless `work` let the worker in.
   */
  async run<T>(
    { claims, address, signature, kind = 'own' }: AdmissionRequest,
    work: (admission: Admission) => Promise<Verdict<T>>,
  ): Promise<Verdict<T>> {
    const begun =
      signature === 'verified'
        ? this.begin(claims, address, kind)
        : this.beginUnverified(claims, address, kind)
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

  /** Registers an admission whose signature is valid. */
  begin(claims: Claims, address: string, kind: AdmissionKind = 'own'): Verdict<Admission> {
    const full = this.#findFull(claims, kind)
    if (full !== undefined) return denied(full)
    return granted(this.#count(this.#create(claims, address, kind)))
  }

  /**
   * Registers an admission whose signature could not be checked. It can be revoked like any other,
   * but does not count against the limits on streams, in all and of the pod it names: anybody can
   * name a pod.
   */
  beginUnverified(
    claims: Claims,
    address: string,
    kind: AdmissionKind = 'own',
  ): Verdict<Admission> {
    if (this.#draining !== undefined) return denied('draining')
    if (!this.#unverified.hasRoom(address)) return denied('keys_unavailable')
    const admission = this.#create(claims, address, kind)
    this.#unverified.add(admission)
    return granted(admission)
  }

  /**
   * The cluster has proven the claims of an unverified admission: now it counts against the limits.
   */
  confirm(admission: Admission): Verdict<Admission> {
    const full = this.#findFull(admission.claims, admission.kind)
    if (full !== undefined) return denied(full)
    this.#unverified.delete(admission)
    return granted(this.#count(admission))
  }

  /** Hosted streams count apart: they must not keep their pod's own stream from coming back. */
  #findFull({ podUid }: Claims, kind: AdmissionKind): Code | undefined {
    const { streamsMax, streamsPerPodMax, hostedPerPodMax = 0 } = this.#options
    if (this.#draining !== undefined) return 'draining'
    if (this.#admissions.size >= streamsMax) return 'too_many_streams'
    const ofPod = [...(this.#admissionsOfPod.get(podUid) ?? [])]
    const own = ofPod.filter((admission) => admission.kind === 'own').length
    const isFull = kind === 'own' ? own >= streamsPerPodMax : ofPod.length - own >= hostedPerPodMax
    return isFull ? 'too_many_streams_of_pod' : undefined
  }

  #create(claims: Claims, address: string, kind: AdmissionKind): Admission {
    this.#begun += 1
    const { clock } = this.#options
    return new Admission({ number: this.#begun, kind, claims, address, clock }, this.#listener)
  }

  #count(admission: Admission): Admission {
    const { podUid } = admission.claims
    const ofPod = this.#admissionsOfPod.get(podUid) ?? new Set<Admission>()
    this.#admissionsOfPod.set(podUid, ofPod.add(admission))
    this.#admissions.add(admission)
    return admission
  }

  /** All admissions that are not over, of a pod or of all pods, unverified ones included. */
  *#list(podUid?: string): Iterable<Admission> {
    yield* podUid === undefined ? this.#admissions : (this.#admissionsOfPod.get(podUid) ?? [])
    for (const admission of this.#unverified) {
      if (podUid === undefined || admission.claims.podUid === podUid) yield admission
    }
  }

  /** The pod's own open stream, without which no hosted stream may begin. */
  findOwn(podUid: string): Admission | undefined {
    return this.#hostedGrace.findOwn(podUid)
  }

  revokePod(podUid: string, code: Code): void {
    for (const admission of this.#list(podUid)) admission.revoke(code)
  }

  /** Aborts the pending admissions of a pod's own streams; its open streams go on. */
  revokePending(podUid: string, code: Code): void {
    for (const admission of this.#list(podUid)) {
      if (admission.state === 'pending' && admission.kind === 'own') admission.revoke(code)
    }
  }

  /** Asks for each entry of a pod why it should end, and ends those that must. */
  reviewPod(podUid: string, findEnd: (admission: Admission) => Code | undefined): void {
    for (const admission of this.#admissionsOfPod.get(podUid) ?? []) {
      const code = findEnd(admission)
      if (code !== undefined) admission.revoke(code)
    }
  }

  /** Asks for each entry why it should end, and ends those that must. */
  review(findEnd: (admission: Admission) => Code | undefined): void {
    for (const admission of this.#list()) {
      const code = findEnd(admission)
      if (code !== undefined) admission.revoke(code)
    }
  }

  /**
   * Revokes everything with `draining`, spread evenly over `windowMs` so that the workers do not
   * all come back at once, and resolves when the last entry is gone. What is left `graceMs` after
   * the window is destroyed. No new admission begins, not even for workers that are already
   * connected. A second call waits for the first.
   */
  drain(windowMs: number, graceMs: number): Promise<Drained> {
    this.#draining ??= this.#drainOnce(windowMs, graceMs)
    return this.#draining
  }

  async #drainOnce(windowMs: number, graceMs: number): Promise<Drained> {
    const { clock } = this.#options
    const admissions = [...this.#list()]
    const spreadMs = Math.max(windowMs, admissions.length * DRAINED_MS_MIN)
    const cancels = admissions.map((admission, index) => {
      // A transfer that is cut off is lost, so it has the whole window to end by itself.
      const share = admission.kind === 'transfer' ? 1 : index / admissions.length
      return clock.after(spreadMs * share, () => admission.revoke('draining'))
    })
    cancels.push(clock.after(spreadMs + graceMs, () => this.destroyAll()))
    await new Promise<void>((resolve) => {
      this.#onEmpty = resolve
      if (this.#isEmpty) resolve()
    })
    for (const cancel of cancels) cancel()
    return { streams: admissions.filter(({ admittedAt }) => admittedAt !== undefined).length }
  }

  /** Destroys all sockets at once, without close frames, and aborts pending admissions. */
  destroyAll(): void {
    for (const admission of this.#list()) {
      admission.revoke('draining')
      admission.destroy()
    }
  }

  /** Pings silent peers once every `idleMs`. Returns a function that stops it. */
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
    this.#hostedGrace.gone(admission)
    if (this.#isEmpty) this.#onEmpty?.()
  }
}
