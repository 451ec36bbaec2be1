/** Live answers of the API server: one request at a time per object, remembered for a moment. */

import { LRUCache } from 'lru-cache'
import type { Verdict } from '../denial.ts'
import type { Clock } from '../lib/clock.ts'

/** How long an answer, or the last event of a watch, is trusted, in milliseconds. */
export const BELIEVED_MS_MAX = 2000
/** The most objects whose last answer is remembered. */
const ANSWERS_MAX = 1000

type Answer<T> = { readonly object: T; readonly askedAt: number }
type Flight<T> = { readonly object: Promise<T | undefined>; readonly askedAt: number }

/** A question about one object. */
export type Question<T extends object> = {
  readonly key: string
  readonly get: () => Promise<T | undefined>
  readonly judge: (object: T | undefined) => Verdict<undefined>
}

export class LiveAnswers<T extends object> {
  readonly #clock: Clock
  readonly #flights = new Map<string, Flight<T>>()
  readonly #answers = new LRUCache<string, Answer<T>>({ max: ANSWERS_MAX })

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The object from an answer that was requested a moment ago. */
  find(key: string): T | undefined {
    return this.freshForMs(key) === undefined ? undefined : this.#answers.get(key)?.object
  }

  /** How much longer `find` has the object, in milliseconds; `undefined` if it has none. */
  freshForMs(key: string): number | undefined {
    const answer = this.#answers.get(key)
    if (answer === undefined) return undefined
    const leftMs = answer.askedAt + BELIEVED_MS_MAX - this.#clock.monotonic()
    return leftMs < 0 ? undefined : leftMs
  }

  /**
   * Asks. Callers that wait for the same answer share one request, but only an answer that was asked
   * for at `since` or later may refuse: an earlier one may not know of a new object. Throws a `Fault`.
   */
  async ask({ key, get, judge }: Question<T>, since: number): Promise<Verdict<undefined>> {
    const flight = this.#join(key, get)
    const verdict = judge(await flight.object)
    if (verdict.ok || flight.askedAt >= since) return verdict
    return judge(await this.#join(key, get).object)
  }

  /** The limit on pending admissions bounds the map. */
  #join(key: string, get: () => Promise<T | undefined>): Flight<T> {
    const known = this.#flights.get(key)
    if (known !== undefined) return known
    const askedAt = this.#clock.monotonic()
    const object = this.#remember(key, askedAt, get).finally(() => this.#flights.delete(key))
    const flight = { object, askedAt }
    this.#flights.set(key, flight)
    return flight
  }

  async #remember(
    key: string,
    askedAt: number,
    get: () => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const object = await get()
    if (object === undefined) this.#answers.delete(key)
    else this.#answers.set(key, { object, askedAt })
    return object
  }
}
