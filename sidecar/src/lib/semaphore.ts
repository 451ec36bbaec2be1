/** Places: so many may be at it at once, and the rest wait in line. */

/** Whoever has a place gives it back by calling this, once. */
export type Leave = () => void

/** The line is as long as its callers let it grow; each bounds how many there are of them. */
export class Places {
  readonly #max: number
  readonly #line = new Set<() => void>()
  #taken = 0

  constructor(max: number) {
    this.#max = max
  }

  /** Those that wait. */
  get waiting(): number {
    return this.#line.size
  }

  /** Resolves in order of asking; rejects with the signal's reason when it aborts before that. */
  take(signal: AbortSignal): Promise<Leave> {
    if (signal.aborted) return Promise.reject(signal.reason as Error)
    if (this.#taken < this.#max) {
      this.#taken += 1
      return Promise.resolve(this.#leaveOnce())
    }
    const { promise, resolve, reject } = Promise.withResolvers<Leave>()
    const enter = () => {
      signal.removeEventListener('abort', giveUp)
      resolve(this.#leaveOnce())
    }
    const giveUp = () => {
      this.#line.delete(enter)
      reject(signal.reason as Error)
    }
    this.#line.add(enter)
    signal.addEventListener('abort', giveUp, { once: true })
    return promise
  }

  /** A place that is given back goes to the next in line: it is never free in between. */
  #leaveOnce(): Leave {
    let hasLeft = false
    return () => {
      if (hasLeft) return
      hasLeft = true
      const [next] = this.#line
      if (next === undefined) {
        this.#taken -= 1
        return
      }
      this.#line.delete(next)
      next()
    }
  }
}
