/** Logs which watches broke and which work again: one line for all of the same moment. */

import type { Clock } from '../lib/clock.ts'
import type { Log } from './log.ts'

/** Which watch: `namespace openclaw`, and `pods` or `serviceaccounts`. */
export type WatchName = { readonly scope: string; readonly resource: string }

/** An outage of the API server breaks all watches within this time, in milliseconds. */
const GATHER_MS = 1000
/** The most scopes that a line names. */
const NAMED_MAX = 10

export class WatchLog {
  readonly #clock: Clock
  readonly #log: Pick<Log, 'warn' | 'info' | 'debug'>
  #down: WatchName[] | undefined
  #up: WatchName[] | undefined
  #downMs = 0

  constructor({
    clock,
    log,
  }: {
    readonly clock: Clock
    readonly log: Pick<Log, 'warn' | 'info' | 'debug'>
  }) {
    this.#clock = clock
    this.#log = log
  }

  /** The cause of the first one is logged, as it is then. */
  broke(watch: WatchName, findCause: () => unknown): void {
    this.#log.debug({ ...watch, err: findCause() }, 'one watch was interrupted')
    this.#down ??= this.#gather((watches) => {
      this.#down = undefined
      this.#log.warn({ ...namesOf(watches), err: findCause() }, 'a watch was interrupted')
    })
    this.#down.push(watch)
  }

  /** The longest time that one was down is logged. */
  worked(watch: WatchName, downMs: number): void {
    this.#downMs = Math.max(this.#downMs, downMs)
    this.#up ??= this.#gather((watches) => {
      this.#up = undefined
      this.#log.info({ ...namesOf(watches), downMs: this.#downMs }, 'the watch works again')
      this.#downMs = 0
    })
    this.#up.push(watch)
  }

  #gather(tell: (watches: readonly WatchName[]) => void): WatchName[] {
    const watches: WatchName[] = []
    this.#clock.after(GATHER_MS, () => tell(watches))
    return watches
  }
}

function namesOf(watches: readonly WatchName[]) {
  const scopes = [...new Set(watches.map(({ scope }) => scope))]
  const others = scopes.length - NAMED_MAX
  return {
    scopes: scopes.slice(0, NAMED_MAX),
    ...(others > 0 ? { others } : {}),
    resources: [...new Set(watches.map(({ resource }) => resource))],
  }
}
