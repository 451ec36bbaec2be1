/** Admissions whose signature could not be checked: a pool that takes no place of a stream. */

import { addressGroup } from '../address-group.ts'
import type { Entry } from './streams.ts'

/** In all, and of one address; the rate at which they may come is the precheck's to bound. */
const UNVERIFIED_MAX = 256
const UNVERIFIED_PER_ADDRESS_MAX = 8

export class UnverifiedAdmissions implements Iterable<Entry> {
  readonly #entries = new Set<Entry>()
  readonly #countOf = new Map<string, number>()

  get size(): number {
    return this.#entries.size
  }

  [Symbol.iterator](): Iterator<Entry> {
    return this.#entries.values()
  }

  has(entry: Entry): boolean {
    return this.#entries.has(entry)
  }

  hasRoom(address: string): boolean {
    const count = this.#countOf.get(addressGroup(address)) ?? 0
    return this.#entries.size < UNVERIFIED_MAX && count < UNVERIFIED_PER_ADDRESS_MAX
  }

  add(entry: Entry): void {
    const group = addressGroup(entry.address)
    this.#entries.add(entry)
    this.#countOf.set(group, (this.#countOf.get(group) ?? 0) + 1)
  }

  delete(entry: Entry): void {
    if (!this.#entries.delete(entry)) return
    const group = addressGroup(entry.address)
    const count = (this.#countOf.get(group) ?? 1) - 1
    if (count === 0) this.#countOf.delete(group)
    else this.#countOf.set(group, count)
  }
}
