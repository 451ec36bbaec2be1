/** Admissions whose signature could not be checked: a pool outside the limits on streams. */

import { addressGroup } from '../lib/address-group.ts'
import { Tally } from '../lib/tally.ts'
import type { Admission } from './admission.ts'

/** The most in all, and of one address. The precheck bounds the rate at which they come. */
const UNVERIFIED_MAX = 256
const UNVERIFIED_PER_ADDRESS_MAX = 8

export class UnverifiedAdmissions implements Iterable<Admission> {
  readonly #admissions = new Set<Admission>()
  readonly #tally = new Tally()
  readonly #groupOf: (address: string) => string

  constructor(groupOf: (address: string) => string = addressGroup) {
    this.#groupOf = groupOf
  }

  get size(): number {
    return this.#admissions.size
  }

  [Symbol.iterator](): Iterator<Admission> {
    return this.#admissions.values()
  }

  has(admission: Admission): boolean {
    return this.#admissions.has(admission)
  }

  hasRoom(address: string): boolean {
    const count = this.#tally.of(this.#groupOf(address))
    return this.#admissions.size < UNVERIFIED_MAX && count < UNVERIFIED_PER_ADDRESS_MAX
  }

  add(admission: Admission): void {
    this.#admissions.add(admission)
    this.#tally.add(this.#groupOf(admission.address))
  }

  delete(admission: Admission): void {
    if (this.#admissions.delete(admission)) this.#tally.remove(this.#groupOf(admission.address))
  }
}
