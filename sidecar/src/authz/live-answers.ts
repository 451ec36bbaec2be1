/** Live answers of the API server: one question at a time for each object, remembered for a moment. */

import { LRUCache } from 'lru-cache'
import type { Clock } from '../lib/clock.ts'

/** For how long an answer or the last word of a watch is believed, in milliseconds. */
export const BELIEVED_MS_MAX = 2000
/** Objects whose last answer is remembered for that long. */
const ANSWERS_MAX = 1000

type Answer<T> = { readonly object: T; readonly askedAt: number }

export class LiveAnswers<T extends object> {
  readonly #clock: Clock
  readonly #flights = new Map<string, Promise<T | undefined>>()
  readonly #answers = new LRUCache<string, Answer<T>>({ max: ANSWERS_MAX })

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The object as an answer showed it that was asked for a moment ago. */
  find(key: string): T | undefined {
    const answer = this.#answers.get(key)
    if (answer === undefined) return undefined
    return this.#clock.monotonic() - answer.askedAt <= BELIEVED_MS_MAX ? answer.object : undefined
  }

  /** One question serves all that wait for the same answer; pending admissions bound them. */
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
