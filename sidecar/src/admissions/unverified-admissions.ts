/** Admissions whose signature could not be checked: a pool that takes no place of a stream. */

import { addressGroup } from '../lib/address-group.ts'
import { Tally } from '../lib/tally.ts'
import type { Entry } from './registry.ts'

/** In all, and of one address; the rate at which they may come is the precheck's to bound. */
const UNVERIFIED_MAX = 256
const UNVERIFIED_PER_ADDRESS_MAX = 8

export class UnverifiedAdmissions implements Iterable<Entry> {
  readonly #entries = new Set<Entry>()
  readonly #tally = new Tally()

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
    const count = this.#tally.of(addressGroup(address))
    return this.#entries.size < UNVERIFIED_MAX && count < UNVERIFIED_PER_ADDRESS_MAX
  }

  add(entry: Entry): void {
    this.#entries.add(entry)
    this.#tally.add(addressGroup(entry.address))
  }

  delete(entry: Entry): void {
    if (this.#entries.delete(entry)) this.#tally.remove(addressGroup(entry.address))
  }
}
