/** Counts per key; a key whose count drops to zero is removed. */

export class Tally {
  readonly #countOf = new Map<string, number>()

  /** Keys with a count of at least one. */
  get size(): number {
    return this.#countOf.size
  }

  of(key: string): number {
    return this.#countOf.get(key) ?? 0
  }

  add(key: string): void {
    this.#countOf.set(key, this.of(key) + 1)
  }

  /** Undoes one earlier `add`. */
  remove(key: string): void {
    const count = this.of(key) - 1
    if (count > 0) this.#countOf.set(key, count)
    else this.#countOf.delete(key)
  }
}
