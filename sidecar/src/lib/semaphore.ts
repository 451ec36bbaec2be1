/** A FIFO semaphore: at most `max` holders at a time, and the others wait for their turn. */

/** Ends a hold. Calling it again changes nothing. */
export type Release = () => void

/** As many wait already as may. */
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

  /** Without a `queueMax` its callers bound the queue. */
  constructor(max: number, queueMax = Infinity) {
    this.#max = max
    this.#queueMax = queueMax
  }

  /** Callers that wait. */
  get waiting(): number {
    return this.#queue.size
  }

  /**
   * Resolves in order of asking. Rejects with the signal's reason when it aborts before that, and
   * with a `QueueFullError` where the queue is full.
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

  /** A hold passes straight to the next in the queue: it is never free in between. */
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
