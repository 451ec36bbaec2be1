/** The registry of pending admissions and live streams: caps, revocation, heartbeat, drain. */

import type { Clock } from '../clock.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import type { Claims } from '../identity.ts'
import type { Counts } from './splice.ts'
import { step, type Effect, type Event, type State } from './lifecycle.ts'

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

/** One admission, from the proven signature to the end of its stream. */
export class Entry {
  readonly number: number
  readonly claims: Claims
  readonly #controller = new AbortController()
  readonly #forget: () => void
  #state: State = 'pending'
  #code: Code = 'draining'
  #stream: LiveStream | undefined

  constructor(number: number, claims: Claims, forget: () => void) {
    this.number = number
    this.claims = claims
    this.#forget = forget
  }

  /** Aborts when the admission is revoked before it was let in. */
  get signal(): AbortSignal {
    return this.#controller.signal
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
  admit(): boolean {
    return this.#take('admit') === 'release'
  }

  attach(stream: LiveStream): void {
    this.#stream = stream
  }

  revoke(code: Code): void {
    if (this.#state === 'pending' || this.#state === 'admitted') this.#code = code
    const effect = this.#take('revoke')
    if (effect === 'abort') this.#controller.abort()
    if (effect === 'close') this.#stream?.close(code)
  }

  /** The sockets are gone, or the admission was given up. */
  finish(): void {
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

/** The heartbeat visits the streams in this many slices a period, so that pings do not come in bursts. */
const HEARTBEAT_SLICES = 20

export class Streams {
  readonly #options: StreamsOptions
  readonly #entries = new Set<Entry>()
  readonly #entriesOfPod = new Map<string, Set<Entry>>()
  #begun = 0
  #onEmpty: (() => void) | undefined

  constructor(options: StreamsOptions) {
    this.#options = options
  }

  /** Pending admissions and live streams. */
  get size(): number {
    return this.#entries.size
  }

  /** What the live streams have carried so far. */
  *listCounts(): Iterable<Counts> {
    for (const { counts } of this.#entries) if (counts !== undefined) yield counts
  }

  /** Registers an admission whose signature holds. From here on it can be revoked. */
  begin(claims: Claims): Verdict<Entry> {
    const { streamsMax, streamsPerPodMax } = this.#options
    if (this.#entries.size >= streamsMax) return denied('too_many_streams')
    const ofPod = this.#entriesOfPod.get(claims.podUid) ?? new Set<Entry>()
    if (ofPod.size >= streamsPerPodMax) return denied('too_many_streams_of_pod')
    this.#begun += 1
    const entry: Entry = new Entry(this.#begun, claims, () => this.#forget(entry, ofPod))
    ofPod.add(entry)
    this.#entriesOfPod.set(claims.podUid, ofPod)
    this.#entries.add(entry)
    return granted(entry)
  }

  revokePod(podUid: string, code: Code): void {
    for (const entry of this.#entriesOfPod.get(podUid) ?? []) entry.revoke(code)
  }

  revokeWhere(isOver: (claims: Claims) => boolean, code: Code): void {
    for (const entry of this.#entries) if (isOver(entry.claims)) entry.revoke(code)
  }

  /**
   * Revokes everything with `draining`, spread evenly over `windowMs` so that the workers do not
   * come back all at once, and resolves when the last one is gone. What is left `graceMs` after
   * the window is destroyed.
   */
  async drain(windowMs: number, graceMs: number): Promise<void> {
    const { clock } = this.#options
    const entries = [...this.#entries]
    const cancels = entries.map((entry, index) =>
      clock.after((windowMs * index) / entries.length, () => entry.revoke('draining')),
    )
    cancels.push(clock.after(windowMs + graceMs, () => this.destroyAll()))
    await new Promise<void>((resolve) => {
      this.#onEmpty = resolve
      if (this.#entries.size === 0) resolve()
    })
    for (const cancel of cancels) cancel()
  }

  /** Drops all sockets at once, without close frames, and aborts what is under way. */
  destroyAll(): void {
    for (const entry of this.#entries) {
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

  #forget(entry: Entry, ofPod: Set<Entry>): void {
    this.#entries.delete(entry)
    ofPod.delete(entry)
    if (ofPod.size === 0) this.#entriesOfPod.delete(entry.claims.podUid)
    if (this.#entries.size === 0) this.#onEmpty?.()
  }
}
