/** The drain: started once, by a signal or by the command, whichever comes first. */

import type { Log } from '../observe/log.ts'
import type { AdmissionRegistry, Drained } from './registry.ts'

export type DrainOptions = {
  /** The time over which the streams are closed, in milliseconds. */
  readonly windowMs: number
  readonly log: Log
  /** The worker port: from the start of the drain it asks every worker to come back later. */
  readonly workerPort: { readonly startDraining: () => void }
  readonly registry: Pick<AdmissionRegistry, 'drain' | 'size'>
}

/** Streams that are left this long after the window are cut off, in milliseconds. */
const DRAIN_GRACE_MS = 3000

export class Drain {
  readonly #options: DrainOptions
  #drained: Promise<Drained> | undefined

  constructor(options: DrainOptions) {
    this.#options = options
  }

  get isUnderWay(): boolean {
    return this.#drained !== undefined
  }

  /** Resolves when every stream is gone. A second call waits for the first; nothing undoes it. */
  run(): Promise<Drained> {
    this.#drained ??= this.#runOnce()
    return this.#drained
  }

  async #runOnce(): Promise<Drained> {
    const { log, registry, windowMs, workerPort } = this.#options
    workerPort.startDraining()
    log.info({ streams: registry.size, windowMs }, 'draining')
    const outcome = await registry.drain(windowMs, DRAIN_GRACE_MS)
    log.info(outcome, 'drained')
    return outcome
  }
}
