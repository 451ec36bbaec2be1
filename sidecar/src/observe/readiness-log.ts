/** Logs when the sidecar becomes ready and when it ceases to be, with the checks. */

import type { Clock } from '../lib/clock.ts'
import { Outage } from '../lib/outage.ts'
import type { Log } from './log.ts'

type Judged = {
  readonly isReady: boolean
  readonly results: readonly { readonly name: string; readonly objection?: string | undefined }[]
}

export type ReadinessLogOptions = {
  readonly clock: Clock
  readonly log: Pick<Log, 'warn' | 'info'>
  readonly judge: () => Promise<Judged>
}

/** Between two looks, in milliseconds. Each one connects to the gateway. */
const LOOK_MS = 5000
/** The same until it is ready for the first time. */
const FIRST_LOOK_MS = 1000
/** A start that takes longer is logged, in milliseconds. */
const START_MS_MAX = 10_000
/** Between two lines of one outage, in milliseconds: its reasons may change at every look. */
const CHANGE_MS_MIN = 60_000

const NOTHING_TOLD = { reasons: '', at: 0 }

export class ReadinessLog {
  readonly #options: ReadinessLogOptions
  readonly #outage: Outage
  #startedAt = 0
  #wasReady = false
  /** The reasons of the outage that were logged last, and when. */
  #told = NOTHING_TOLD
  #isStopped = false
  #cancelLook = () => {}

  constructor(options: ReadinessLogOptions) {
    this.#options = options
    const { clock, log } = options
    this.#outage = new Outage({
      clock,
      onBegin: (checks) => this.#warn(checks, 'not ready: no new workers are sent here'),
      onEnd: (notReadyMs) => {
        this.#told = NOTHING_TOLD
        log.info({ notReadyMs }, 'ready again')
      },
    })
  }

  start(): void {
    this.#startedAt = this.#options.clock.monotonic()
    this.#lookAfter(FIRST_LOOK_MS)
  }

  stop(): void {
    this.#isStopped = true
    this.#cancelLook()
    this.#outage.stop()
  }

  #lookAfter(ms: number): void {
    this.#cancelLook = this.#options.clock.after(ms, () => void this.#look())
  }

  async #look(): Promise<void> {
    const judged = await this.#options.judge()
    if (this.#isStopped) return
    this.#tell(judged)
    this.#lookAfter(this.#wasReady ? LOOK_MS : FIRST_LOOK_MS)
  }

  #tell({ isReady, results }: Judged): void {
    const { clock, log } = this.#options
    const sinceStartMs = clock.monotonic() - this.#startedAt
    if (!isReady) {
      const reasons = objectionsOf(results)
      if (this.#wasReady || sinceStartMs >= START_MS_MAX) this.#outage.failed(reasons)
      this.#tellChange(reasons)
      return
    }
    if (this.#wasReady) return this.#outage.worked()
    this.#wasReady = true
    this.#outage.stop()
    this.#told = NOTHING_TOLD
    const checks = results.map(({ name }) => name)
    log.info({ checks, afterMs: Math.round(sinceStartMs) }, 'ready: workers can connect')
  }

  /** An operator who fixes the first reason must learn of the next one. */
  #tellChange(reasons: Reasons): void {
    const { reasons: told, at } = this.#told
    const isNew = told !== '' && told !== JSON.stringify(reasons)
    if (!isNew || this.#options.clock.monotonic() - at < CHANGE_MS_MIN) return
    this.#warn(reasons, 'still not ready, for other reasons')
  }

  #warn(checks: unknown, message: string): void {
    this.#told = { reasons: JSON.stringify(checks), at: this.#options.clock.monotonic() }
    this.#options.log.warn({ checks }, message)
  }
}

type Reasons = Readonly<Record<string, string>>

const objectionsOf = (results: Judged['results']): Reasons =>
  Object.fromEntries(
    results.flatMap(({ name, objection }) => (objection === undefined ? [] : [[name, objection]])),
  )
