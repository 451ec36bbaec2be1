/** A FIFO semaphore: at most `max` holders at a time, and the others wait for their turn. */

/** Ends a hold. Calling it again changes nothing. */
export type Release = () => void

/** The queue is full. */
class QueueFullError extends Error {
  constructor() {
    super('too many requests are waiting')
    this.name = 'QueueFullError'
  }
}

export class Semaphore {
  readonly #max: number
  readonly #queueMax: number
  readonly #queue = new Set<() => void>()
  #held = 0

  /** Without a `queueMax` the queue is unbounded here; its callers bound it. */
  constructor(max: number, queueMax = Infinity) {
    this.#max = max
    this.#queueMax = queueMax
  }

  /** Callers that are waiting. */
  get waiting(): number {
    return this.#queue.size
  }

  /**
   * Resolves in the order of the calls. Rejects with the signal's reason when the signal aborts
   * first, and with a `QueueFullError` when the queue is full.
   */
  acquire(signal: AbortSignal): Promise<Release> {
    if (signal.aborted) return Promise.reject(signal.reason as Error)
    if (this.#held < this.#max) {
      this.#held += 1
      return Promise.resolve(this.#releaseOnce())
    }
    if (this.#queue.size >= this.#queueMax) return Promise.reject(new QueueFullError())
    const { promise, resolve, reject } = Promise.withResolvers<Release>()
    const enter = () => {
      signal.removeEventListener('abort', giveUp)
      resolve(this.#releaseOnce())
    }
    const giveUp = () => {
      this.#queue.delete(enter)
      reject(signal.reason as Error)
    }
    this.#queue.add(enter)
    signal.addEventListener('abort', giveUp, { once: true })
    return promise
  }

  /** A hold passes straight to the next caller in the queue: it is never free in between. */
  #releaseOnce(): Release {
    let isReleased = false
    return () => {
      if (isReleased) return
      isReleased = true
      const [next] = this.#queue
      if (next === undefined) {
        this.#held -= 1
        return
      }
      this.#queue.delete(next)
      next()
    }
  }
}
