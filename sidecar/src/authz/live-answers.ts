/** Live answers of the API server: one request at a time per object, remembered for a moment. */

import { LRUCache } from 'lru-cache'
import type { Clock } from '../lib/clock.ts'

/** How long an answer, or the last event of a watch, is trusted, in milliseconds. */
export const BELIEVED_MS_MAX = 2000
/** The most objects whose last answer is remembered. */
const ANSWERS_MAX = 1000

type Answer<T> = { readonly object: T; readonly askedAt: number }

export class LiveAnswers<T extends object> {
  readonly #clock: Clock
  readonly #flights = new Map<string, Promise<T | undefined>>()
  readonly #answers = new LRUCache<string, Answer<T>>({ max: ANSWERS_MAX })

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The object from an answer that was requested a moment ago. */
  find(key: string): T | undefined {
    const answer = this.#answers.get(key)
    if (answer === undefined) return undefined
    return this.#clock.monotonic() - answer.askedAt <= BELIEVED_MS_MAX ? answer.object : undefined
  }

  /**
   * Callers that wait for the same answer share one request. The limit on pending admissions bounds
   * the map.
   */
  ask(key: string, get: () => Promise<T | undefined>): Promise<T | undefined> {
    const known = this.#flights.get(key)
    if (known !== undefined) return known
    const flight = this.#ask(key, get).finally(() => this.#flights.delete(key))
    this.#flights.set(key, flight)
    return flight
  }

  async #ask(key: string, get: () => Promise<T | undefined>): Promise<T | undefined> {
    const askedAt = this.#clock.monotonic()
    const object = await get()
    if (object === undefined) this.#answers.delete(key)
    else this.#answers.set(key, { object, askedAt })
    return object
  }
}
