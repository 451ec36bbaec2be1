/** What disturbed the sidecar's watch, and what may still be seen of a deletion because of it. */

import { LET_IN, type Verdict } from './answers.ts'

/** Times are those of `performance.now()`; `until` is `Infinity` while it lasts. */
type Window = { readonly from: number; until: number }

/** An event's delivery, and the second that the end of a stream may take. */
export const REVOKED_WITHIN_MS = 2000
/** What disturbs a watch is found out: 35 s of silence, a pause of 3 s, a list within 15 s. */
const REVOKED_AFTER_TROUBLE_MS = 53_000
/** A cached verdict admits for so long without a watch, and an answer of the last two seconds will do. */
const BELIEVED_MS = 12_000

export class Troubles {
  readonly #windows: Window[] = []
  readonly #tailMs: number

  /** `tailMs`: how long a watch may be disturbed after the end of what disturbed it. */
  constructor(tailMs: number) {
    this.#tailMs = tailMs
  }

  add(window: Window): void {
    this.#windows.push(window)
  }

  /** Whether anything disturbed the watch between a deletion and a later moment. */
  touch(deletedAt: number, until: number): boolean {
    return this.#windows.some(
      (window) => window.from <= until && window.until + this.#tailMs >= deletedAt,
    )
  }

  /** When everything has to know that a pod deleted at this moment is gone. */
  forgottenBy(deletedAt: number): number {
    const until = deletedAt + REVOKED_WITHIN_MS
    if (!this.touch(deletedAt, until)) return until
    const last = Math.max(deletedAt, ...this.#windows.map((window) => window.until))
    return last + REVOKED_AFTER_TROUBLE_MS
  }

  /** The token of a deleted pod has let somebody in. */
  judgeLateEntry(startedAt: number, deletedAt: number): Verdict {
    const late = startedAt - deletedAt
    const limit = this.touch(deletedAt, startedAt) ? BELIEVED_MS : REVOKED_WITHIN_MS
    if (late <= limit) return 'doubted'
    return { problem: `a pod's token ${LET_IN} ${Math.round(late)} ms after its deletion` }
  }
}
