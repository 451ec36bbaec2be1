/** The last safety net: a peer's unhandled socket `error` ends its socket, not the process. */

import { errorMonitor } from 'node:events'
import type { Duplex } from 'node:stream'
import type { Clock } from './clock.ts'

export type PeerErrorsOptions = {
  readonly clock: Clock
  /** An uncaught error was survived. Its socket has been destroyed. */
  readonly onSurvived: (error: Error) => void
}

/**
 * An `error` listener for sockets whose `close` event says what the error means. All sockets share
 * it: a closure would keep its scope alive for as long as its socket lives.
 */
export const ignoreError = (): void => {}

/** Errors survived within `WINDOW_MS`. One more must be a bug, and ends the process. */
const SURVIVED_MAX = 10
const WINDOW_MS = 60_000

/**
 * Every socket has its own error listener from birth to death, so nothing should ever reach this
 * net. Only the `error` event of a watched stream can: an exception or a rejection that carries the
 * same error object is a bug.
 */
export class PeerErrors {
  readonly #options: PeerErrorsOptions
  /** Errors whose event found no listener, by error object. */
  readonly #uncaught = new WeakMap<Error, Duplex>()
  /** When errors were survived, on the monotonic clock: at most `SURVIVED_MAX` entries. */
  #survivedAt: readonly number[] = []
  readonly #onError: (this: Duplex, error: Error) => void

  constructor(options: PeerErrorsOptions) {
    this.#options = options
    const uncaught = this.#uncaught
    // One function for all streams: a closure for each would cost memory for each connection.
    this.#onError = function noteUncaught(error) {
      if (this.listenerCount('error') === 0) uncaught.set(error, this)
    }
  }

  /** Watches a stream that was accepted from a peer or dialed to the gateway. */
  readonly watch = (stream: Duplex): void => {
    stream.on(errorMonitor, this.#onError)
  }

  /**
   * Destroys the stream that emitted this uncaught `error`, and with it its admission. Returns
   * false when the error is not such an event, or is one too many: then the process must end.
   */
  survive(error: unknown, origin: NodeJS.UncaughtExceptionOrigin): boolean {
    const stream = error instanceof Error ? this.#uncaught.get(error) : undefined
    if (stream === undefined || origin !== 'uncaughtException') return false
    this.#uncaught.delete(error as Error)
    const now = this.#options.clock.monotonic()
    const recent = this.#survivedAt.filter((at) => now - at < WINDOW_MS)
    if (recent.length >= SURVIVED_MAX) return false
    this.#survivedAt = [...recent, now]
    stream.destroy()
    this.#options.onSurvived(error as Error)
    return true
  }
}
