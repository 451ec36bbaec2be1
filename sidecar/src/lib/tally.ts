/** Counts per key, which holds no key that counts nothing. */

export class Tally {
  readonly #countOf = new Map<string, number>()

  /** Keys that count at least one. */
  get size(): number {
    return this.#countOf.size
  }

  of(key: string): number {
    return this.#countOf.get(key) ?? 0
  }

  add(key: string): void {
    this.#countOf.set(key, this.of(key) + 1)
  }

  /** Takes one of an earlier `add` back. */
  remove(key: string): void {
    const count = this.of(key) - 1
    if (count > 0) this.#countOf.set(key, count)
    else this.#countOf.delete(key)
  }
}
