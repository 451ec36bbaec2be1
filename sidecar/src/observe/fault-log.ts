/** Logs what keeps failing: each kind of fault once when it begins, and once when it is over. */

import type { Clock } from '../lib/clock.ts'
import { Outage } from '../lib/outage.ts'
import type { Log } from './log.ts'

export type FaultLogOptions = {
  readonly clock: Clock
  readonly log: Pick<Log, 'warn' | 'info'>
  /** What the line at the begin says. The line at the end adds: is over. */
  readonly message: string
}

/** A kind that has not occurred for this long is over, in milliseconds. */
const QUIET_MS = 60_000

type Kind = { readonly outage: Outage; count: number }

/** The caller bounds how many kinds there are. */
export class FaultLog {
  readonly #options: FaultLogOptions
  readonly #kinds = new Map<string, Kind>()

  constructor(options: FaultLogOptions) {
    this.#options = options
  }

  /** A fault of this kind. What is logged is the `err` and the `fields` of the first one. */
  failed(kind: string, err: unknown, fields: Readonly<Record<string, unknown>> = {}): void {
    const { clock, log, message } = this.#options
    let known = this.#kinds.get(kind)
    if (known === undefined) {
      const outage = new Outage({
        clock,
        quietMs: QUIET_MS,
        onBegin: (error) => log.warn({ ...fields, err: error }, message),
        onEnd: (lengthMs) => {
          const count = this.#kinds.get(kind)?.count
          this.#kinds.delete(kind)
          log.info({ ...fields, count, lengthMs }, `${message}: is over`)
        },
      })
      known = { outage, count: 0 }
      this.#kinds.set(kind, known)
    }
    known.count += 1
    known.outage.failed(err)
    // It may be the last one.
    known.outage.worked()
  }

  stop(): void {
    for (const { outage } of this.#kinds.values()) outage.stop()
    this.#kinds.clear()
  }
}
