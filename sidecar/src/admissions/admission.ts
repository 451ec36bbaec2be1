/** One admission, from the check of its signature to the end of its stream. */

import { isFault, type Code } from '../denial.ts'
import type { Claims } from '../identity.ts'
import type { Clock } from '../lib/clock.ts'
import type { RelayTotals } from '../lib/relay-totals.ts'
import { step, type Effect, type LifecycleEvent, type State } from './lifecycle.ts'

/** The part of a spliced stream the registry needs. */
export type LiveStream = {
  readonly counts: RelayTotals
  /** Whether one of its peers has begun to close it. */
  readonly isClosing?: boolean
  readonly close: (code: Code) => void
  readonly destroy: () => void
  readonly ping: () => void
}

/**
 * `own`: the stream of a pod's worker. `hosted`: a stream of a session that the pod hosts, beside
 * its own. `transfer`: one request and its answer for such a session.
 */
export type AdmissionKind = 'own' | 'hosted' | 'transfer'

export type AdmissionOptions = Pick<Admission, 'number' | 'kind' | 'claims' | 'address'> & {
  readonly clock: Clock
}

/** One for all admissions: closures for each would cost memory for each stream. */
export type AdmissionListener = {
  /** The stream was revoked while it was open. */
  readonly onRevoked: (admission: Admission) => void
  readonly onGone: (admission: Admission) => void
}

/** How long a stream may outlive a denial, such as a deleted pod, in milliseconds. */
const DENIED_MS_MAX = 900

/** Whether `DENIED_MS_MAX` applies: to a denial, or a policy that no longer allows the stream. */
export const isVerdict = (code: Code): boolean => !isFault(code) || code === 'policy_changed'

/** Times are from the monotonic clock. */
export class Admission {
  readonly number: number
  readonly kind: AdmissionKind
  readonly claims: Claims
  /** Where the worker connected from. */
  readonly address: string
  readonly #clock: Clock
  #controller: AbortController | undefined
  readonly #listener: AdmissionListener
  #state: State = 'pending'
  #code: Code = 'draining'
  #admittedAt: number | undefined
  #role: string | undefined
  #revokedAt: number | undefined
  #stream: LiveStream | undefined
  #cancelDestroy: (() => void) | undefined
  #findOfferEnd: (() => Code | undefined) | undefined

  constructor(options: AdmissionOptions, listener: AdmissionListener) {
    const { number, kind, claims, address, clock } = options
    this.number = number
    this.kind = kind
    this.claims = claims
    this.address = address
    this.#clock = clock
    this.#listener = listener
  }

  /** The role the worker was admitted with; `undefined` before. */
  get role(): string | undefined {
    return this.#role
  }

  /** When the worker was admitted; `undefined` before. */
  get admittedAt(): number | undefined {
    return this.#admittedAt
  }

  /** When the admission was revoked; `undefined` while it is valid. */
  get revokedAt(): number | undefined {
    return this.#revokedAt
  }

  /** Aborts when the admission is revoked before the worker was admitted. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.isAborted) this.#controller.abort()
    }
    return this.#controller.signal
  }

  /** Whether it was revoked before the worker was admitted. */
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
   * The last, synchronous step of an admission. If it returns true, the worker is admitted and the
   * caller must call `attach` in the same turn.
   */
  admit(role: string): boolean {
    if (this.#take('admit') !== 'release') return false
    this.#role = role
    // Nobody needs the signal any more.
    this.#controller = undefined
    this.#admittedAt = this.#clock.monotonic()
    return true
  }

  /** How to tell that the policy does not allow what the worker offers. */
  judgeBy(findEnd: () => Code | undefined): void {
    this.#findOfferEnd = findEnd
  }

  /** Why the current policy does not allow what the worker offers, or offered until it left. */
  findOfferEnd(): Code | undefined {
    return this.#findOfferEnd?.()
  }

  attach(stream: LiveStream): void {
    this.#stream = stream
    // A revocation between `admit` and `attach` found no stream to close.
    if (this.#state === 'closing') stream.close(this.#code)
  }

  revoke(code: Code): void {
    if (this.#state === 'pending' || this.#state === 'admitted') {
      this.#code = code
      this.#revokedAt = this.#clock.monotonic()
    }
    const effect = this.#take('revoke')
    if (effect === 'abort') this.#controller?.abort()
    if (effect === 'close') this.#stream?.close(code)
    // The current frame may finish, and a slow reader may read its close frame, but not for long. A
    // stream that closes already for a milder reason has no more time than the others.
    if (this.#state === 'closing' && isVerdict(code)) this.#destroySoon()
    if (effect === 'close') this.#listener.onRevoked(this)
  }

  #destroySoon(): void {
    this.#cancelDestroy ??= this.#clock.after(DENIED_MS_MAX, () => this.destroy())
  }

  /** The sockets are gone, or the admission was abandoned. */
  finish(): void {
    this.#cancelDestroy?.()
    if (this.#take('finish') === 'forget') this.#listener.onGone(this)
  }

  /** What its stream has carried so far; `undefined` before there is one. */
  get counts(): RelayTotals | undefined {
    return this.#stream?.counts
  }

  /** Whether its stream is about to end, by whichever side. */
  get isEnding(): boolean {
    return this.#stream?.isClosing === true
  }

  ping(): void {
    if (this.#state === 'admitted') this.#stream?.ping()
  }

  destroy(): void {
    this.#stream?.destroy()
  }

  #take(event: LifecycleEvent): Effect {
    const [next, effect] = step(this.#state, event)
    this.#state = next
    return effect
  }
}
