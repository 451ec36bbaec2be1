/** The registry of pending admissions and live streams: caps, revocation, heartbeat, drain. */

import type { Clock } from '../lib/clock.ts'
import { denied, granted, isFault, type Code, type Verdict } from '../denial.ts'
import type { Claims } from '../identity.ts'
import type { Counts } from '../tunnel/splice.ts'
import { step, type Effect, type Event, type State } from './lifecycle.ts'
import { UnverifiedAdmissions } from './unverified-admissions.ts'

/** The part of a spliced stream the registry needs. */
export type LiveStream = {
  readonly counts: Counts
  readonly close: (code: Code) => void
  readonly destroy: () => void
  readonly ping: () => void
}

export type StreamsOptions = {
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

type EntryOptions = Pick<Entry, 'number' | 'claims' | 'address'> & { readonly clock: Clock }

/** How long a stream may outlive a denial, a deleted pod's for one, in milliseconds. */
const DENIED_MS_MAX = 900

/** What the stream's own end does not excuse: a denial, or a policy that no longer allows it. */
const isVerdict = (code: Code): boolean => !isFault(code) || code === 'policy_changed'

/**
 * One admission, from the check of the signature to the end of its stream. Times are of the steady
 * clock.
 */
export class Entry {
  readonly number: number
  readonly claims: Claims
  /** Where the worker connected from. */
  readonly address: string
  readonly #clock: Clock
  #controller: AbortController | undefined
  readonly #forget: () => void
  #state: State = 'pending'
  #code: Code = 'draining'
  #admittedAt: number | undefined
  #role: string | undefined
  #revokedAt: number | undefined
  #stream: LiveStream | undefined
  #cancelDestroy: (() => void) | undefined

  constructor({ number, claims, address, clock }: EntryOptions, forget: () => void) {
    this.number = number
    this.claims = claims
    this.address = address
    this.#clock = clock
    this.#forget = forget
  }

  /** The role it was let in with; `undefined` before. */
  get role(): string | undefined {
    return this.#role
  }

  /** When it was let in; `undefined` before. */
  get admittedAt(): number | undefined {
    return this.#admittedAt
  }

  /** When its right to be here ended; `undefined` while it has it. */
  get revokedAt(): number | undefined {
    return this.#revokedAt
  }

  /** Aborts when the admission is revoked before it was let in. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.isAborted) this.#controller.abort()
    }
    return this.#controller.signal
  }

  /** Whether it was revoked before it was let in. */
  get isAborted(): boolean {
    return this.#admittedAt === undefined && this.#revokedAt !== undefined
  }

  get state(): State {
    return this.#state
  }

  /** Why it was revoked. */
  get code(): Code {
    return this.#code
  }

  /**
   * The last, synchronous question of an admission: true lets the worker in, and the caller must
   * then call `attach` in the same turn.
   */
  admit(role: string): boolean {
    if (this.#take('admit') !== 'release') return false
    this.#role = role
    // Nobody is told by it any more.
    this.#controller = undefined
    this.#admittedAt = this.#clock.monotonic()
    return true
  }

  attach(stream: LiveStream): void {
    this.#stream = stream
    // A revocation between the two found no stream to close.
    if (this.#state === 'closing') stream.close(this.#code)
  }

  revoke(code: Code): void {
    if (this.#state === 'pending' || this.#state === 'admitted') {
      this.#code = code
      this.#revokedAt = this.#clock.monotonic()
    }
    const effect = this.#take('revoke')
    if (effect === 'abort') this.#controller?.abort()
    if (effect !== 'close') return
    this.#stream?.close(code)
    // A frame under way may finish, and a slow reader may read its close: but not for long.
    if (isVerdict(code))
      this.#cancelDestroy = this.#clock.after(DENIED_MS_MAX, () => this.destroy())
  }

  /** The sockets are gone, or the admission was given up. */
  finish(): void {
    this.#cancelDestroy?.()
    if (this.#take('finish') === 'forget') this.#forget()
  }

  /** What its stream has carried so far; `undefined` before there is one. */
  get counts(): Counts | undefined {
    return this.#stream?.counts
  }

  ping(): void {
    if (this.#state === 'admitted') this.#stream?.ping()
  }

  destroy(): void {
    this.#stream?.destroy()
  }

  #take(event: Event): Effect {
    const [next, effect] = step(this.#state, event)
    this.#state = next
    return effect
  }
}

/** A drain gives each stream so much of the loop's time, in milliseconds, however short its window. */
const DRAINED_MS_MIN = 0.2
/** The heartbeat visits the streams in this many slices a period, so that pings do not come in bursts. */
const HEARTBEAT_SLICES = 20

export class Streams {
  readonly #options: StreamsOptions
  readonly #entries = new Set<Entry>()
  readonly #entriesOfPod = new Map<string, Set<Entry>>()
  readonly #unverified = new UnverifiedAdmissions()
  #begun = 0
  #draining: Promise<Drained> | undefined
  #onEmpty: (() => void) | undefined

  constructor(options: StreamsOptions) {
    this.#options = options
  }

  /** Pending admissions and live streams; those nobody has vouched for yet are not among them. */
  get size(): number {
    return this.#entries.size
  }

  /** What the live streams have carried so far. */
  *listCounts(): Iterable<Counts> {
    for (const { counts } of this.#entries) if (counts !== undefined) yield counts
  }

  /** Registers an admission whose signature holds. From here on it can be revoked. */
  begin(claims: Claims, address: string): Verdict<Entry> {
    const full = this.#findFull(claims)
    if (full !== undefined) return denied(full)
    return granted(this.#count(this.#create(claims, address)))
  }

  /**
   * Registers an admission whose signature nobody could check. It can be revoked like any other,
   * but takes no place of a stream, nor of the pod it names: anybody can name one.
   */
  beginUnverified(claims: Claims, address: string): Verdict<Entry> {
    if (this.#draining !== undefined) return denied('draining')
    if (!this.#unverified.hasRoom(address)) return denied('keys_unavailable')
    const entry = this.#create(claims, address)
    this.#unverified.add(entry)
    return granted(entry)
  }

  /** The cluster has proven the claims of an unverified admission: it takes its places now. */
  confirm(entry: Entry): Verdict<Entry> {
    const full = this.#findFull(entry.claims)
    if (full !== undefined) return denied(full)
    this.#unverified.delete(entry)
    return granted(this.#count(entry))
  }

  #findFull({ podUid }: Claims): Code | undefined {
    const { streamsMax, streamsPerPodMax } = this.#options
    if (this.#draining !== undefined) return 'draining'
    if (this.#entries.size >= streamsMax) return 'too_many_streams'
    const ofPod = this.#entriesOfPod.get(podUid)?.size ?? 0
    return ofPod >= streamsPerPodMax ? 'too_many_streams_of_pod' : undefined
  }

  #create(claims: Claims, address: string): Entry {
    this.#begun += 1
    const { clock } = this.#options
    const entry: Entry = new Entry({ number: this.#begun, claims, address, clock }, () =>
      this.#forget(entry),
    )
    return entry
  }

  #count(entry: Entry): Entry {
    const { podUid } = entry.claims
    const ofPod = this.#entriesOfPod.get(podUid) ?? new Set<Entry>()
    this.#entriesOfPod.set(podUid, ofPod.add(entry))
    this.#entries.add(entry)
    return entry
  }

  /** Of a pod, or of all: what may still become a stream, and what is one. */
  *#list(podUid?: string): Iterable<Entry> {
    yield* podUid === undefined ? this.#entries : (this.#entriesOfPod.get(podUid) ?? [])
    for (const entry of this.#unverified) {
      if (podUid === undefined || entry.claims.podUid === podUid) yield entry
    }
  }

  revokePod(podUid: string, code: Code): void {
    for (const entry of this.#list(podUid)) entry.revoke(code)
  }

  /** Aborts the admissions of a pod that are still under way; its streams go on. */
  revokePending(podUid: string, code: Code): void {
    for (const entry of this.#list(podUid)) {
      if (entry.state === 'pending') entry.revoke(code)
    }
  }

  /** Asks of a pod's entries why they should end, and ends those that have to. */
  reviewPod(podUid: string, findEnd: (entry: Entry) => Code | undefined): void {
    for (const entry of this.#entriesOfPod.get(podUid) ?? []) {
      const code = findEnd(entry)
      if (code !== undefined) entry.revoke(code)
    }
  }

  /** Asks of every entry why it should end, and ends those that have to. */
  review(findEnd: (entry: Entry) => Code | undefined): void {
    for (const entry of this.#list()) {
      const code = findEnd(entry)
      if (code !== undefined) entry.revoke(code)
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
    const entries = [...this.#list()]
    const spreadMs = Math.max(windowMs, entries.length * DRAINED_MS_MIN)
    const cancels = entries.map((entry, index) =>
      clock.after((spreadMs * index) / entries.length, () => entry.revoke('draining')),
    )
    cancels.push(clock.after(spreadMs + graceMs, () => this.destroyAll()))
    await new Promise<void>((resolve) => {
      this.#onEmpty = resolve
      if (this.#isEmpty) resolve()
    })
    for (const cancel of cancels) cancel()
    return { streams: entries.filter(({ admittedAt }) => admittedAt !== undefined).length }
  }

  /** Drops all sockets at once, without close frames, and aborts what is under way. */
  destroyAll(): void {
    for (const entry of this.#list()) {
      entry.revoke('draining')
      entry.destroy()
    }
  }

  /** Pings silent peers once every `idleMs`. Returns the way to stop. */
  startHeartbeat(idleMs: number): () => void {
    const { clock } = this.#options
    let cancel = () => {}
    let slice = 0
    const beat = () => {
      for (const entry of this.#entries) {
        if (entry.number % HEARTBEAT_SLICES === slice) entry.ping()
      }
      slice = (slice + 1) % HEARTBEAT_SLICES
      cancel = clock.after(idleMs / HEARTBEAT_SLICES, beat)
    }
    cancel = clock.after(idleMs / HEARTBEAT_SLICES, beat)
    return () => cancel()
  }

  get #isEmpty(): boolean {
    return this.#entries.size + this.#unverified.size === 0
  }

  #forget(entry: Entry): void {
    this.#unverified.delete(entry)
    const { podUid } = entry.claims
    const ofPod = this.#entriesOfPod.get(podUid)
    if (this.#entries.delete(entry)) ofPod?.delete(entry)
    if (ofPod?.size === 0) this.#entriesOfPod.delete(podUid)
    if (this.#isEmpty) this.#onEmpty?.()
  }
}
