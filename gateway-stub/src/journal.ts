/** A bounded record of what happened, in order, that can be awaited instead of polled. */

const WAITERS_MAX = 10_000

type Waiter<T> = {
  readonly ordinal: number
  readonly resolve: (entry: T) => void
  readonly reject: (cause: Error) => void
}

export type JournalLimits<T> = {
  /** Entries kept; the oldest go first. At least 1. */
  readonly entriesMax: number
  /** Sum of the kept entries' weights; the newest entry is kept whatever it weighs. */
  readonly weightMax?: number
  readonly weigh?: (entry: T) => number
}

export class Journal<T> {
  readonly #limits: JournalLimits<T>
  readonly #entries: T[] = []
  #waiters: Waiter<T>[] = []
  #total = 0
  #weight = 0
  #ended: Error | undefined

  constructor(limits: JournalLimits<T>) {
    this.#limits = limits
  }

  /** The kept entries, oldest first: always the same array. */
  get entries(): readonly T[] {
    return this.#entries
  }

  /** How many entries there have been in total. */
  get total(): number {
    return this.#total
  }

  add(entry: T): void {
    this.#entries.push(entry)
    this.#total += 1
    this.#weight += this.#weigh(entry)
    this.#evict()
    const due = this.#waiters.filter((waiter) => waiter.ordinal === this.#total)
    if (due.length === 0) return
    this.#waiters = this.#waiters.filter((waiter) => waiter.ordinal !== this.#total)
    for (const waiter of due) waiter.resolve(entry)
  }

  /** The n-th entry of all, counted from 1, as soon as it exists; without `ordinal` the next. */
  wait(ordinal: number = this.#total + 1): Promise<T> {
    if (ordinal <= this.#total) return this.#recall(ordinal)
    if (this.#ended !== undefined) return Promise.reject(this.#ended)
    if (this.#waiters.length >= WAITERS_MAX) return Promise.reject(new Error('too many waiters'))
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    this.#waiters.push({ ordinal, resolve, reject })
    // A wait that was abandoned before the end must not crash the process.
    promise.catch(() => {})
    return promise
  }

  /** Rejects every wait, present and future, that can no longer be fulfilled. */
  end(cause: Error): void {
    this.#ended = cause
    for (const waiter of this.#waiters) waiter.reject(cause)
    this.#waiters = []
  }

  #recall(ordinal: number): Promise<T> {
    const entry = this.#entries[ordinal - 1 - (this.#total - this.#entries.length)]
    if (entry !== undefined) return Promise.resolve(entry)
    return Promise.reject(new Error(`entry ${ordinal} is not kept`))
  }

  #weigh(entry: T): number {
    return this.#limits.weigh?.(entry) ?? 0
  }

  #evict(): void {
    const { entriesMax, weightMax = Infinity } = this.#limits
    while (
      this.#entries.length > entriesMax ||
      (this.#weight > weightMax && this.#entries.length > 1)
    ) {
      const oldest = this.#entries.shift()
      if (oldest !== undefined) this.#weight -= this.#weigh(oldest)
    }
  }
}
