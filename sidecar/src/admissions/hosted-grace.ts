/** Ties a pod's hosted streams to its own stream: when that ends, they end with it or a while later. */

import type { Clock } from '../lib/clock.ts'
import { isVerdict, type Admission } from './admission.ts'

export type HostedGraceOptions = {
  /** The admissions of a pod that are not over. */
  readonly listOf: (podUid: string) => Iterable<Admission>
  readonly clock: Clock
}

/**
 * How long hosted streams may go on without their pod's own stream, in milliseconds. A node that
 * lost its gateway comes back well within it, and a turn of a session survives that.
 */
const GRACE_MS = 120_000

export class HostedGrace {
  readonly #options: HostedGraceOptions
  /** By pod uid: cancels the end of its hosted streams. At most one for each pod with streams. */
  readonly #cancels = new Map<string, () => void>()

  constructor(options: HostedGraceOptions) {
    this.#options = options
  }

  /** The pod's own open stream; while there is none, no hosted stream may begin. */
  findOwn(podUid: string): Admission | undefined {
    return this.#list(podUid).find(
      ({ kind, state, isEnding }) => kind === 'own' && state === 'admitted' && !isEnding,
    )
  }

  /** An open stream was revoked. A verdict on a pod's own stream holds for its hosted ones too. */
  revoked({ kind, code, claims }: Admission): void {
    if (kind !== 'own' || !isVerdict(code)) return
    for (const hosted of this.#listHosted(claims.podUid)) hosted.revoke(code)
  }

  /** An admission is over. */
  gone({ kind, admittedAt, claims }: Admission): void {
    const { podUid } = claims
    const hasHosted = this.#listHosted(podUid).length > 0
    const isOwnStream = kind === 'own' && admittedAt !== undefined
    if (hasHosted && !isOwnStream) return
    this.#cancels.get(podUid)?.()
    this.#cancels.delete(podUid)
    if (!hasHosted) return
    const end = () => this.#end(podUid)
    this.#cancels.set(podUid, this.#options.clock.after(GRACE_MS, end))
  }

  #end(podUid: string): void {
    this.#cancels.delete(podUid)
    if (this.findOwn(podUid) !== undefined) return
    for (const hosted of this.#listHosted(podUid)) hosted.revoke('session_hosting_no_stream')
  }

  #listHosted(podUid: string): readonly Admission[] {
    return this.#list(podUid).filter(({ kind }) => kind !== 'own')
  }

  #list(podUid: string): readonly Admission[] {
    return [...this.#options.listOf(podUid)]
  }
}
