/** The audit stream: one line for each decision, whoever it was about. */

import type { Clock } from '../clock.ts'

export type AuditLine = Readonly<Record<string, unknown>> & {
  readonly event: 'k8s-auth-success' | 'k8s-auth-failed' | 'k8s-session-closed'
}

export type AuditOptions = {
  readonly clock: Clock
  /** Takes one line with its newline. */
  readonly write: (line: string) => void
  /** Whether lines are written at all. */
  readonly isEnabled: () => boolean
}

/** Failures nobody has signed for are told apart by code and address, up to this many a second. */
const GROUPS_MAX = 1000
const FLUSH_MS = 1000

type Group = { readonly line: AuditLine; count: number }

export class Audit {
  readonly #options: AuditOptions
  readonly #groups = new Map<string, Group>()
  #cancelFlush: (() => void) | undefined

  constructor(options: AuditOptions) {
    this.#options = options
  }

  /** Writes a line of its own. */
  write(line: AuditLine): void {
    const { clock, isEnabled, write } = this.#options
    if (!isEnabled()) return
    const timestamp = new Date(clock.now()).toISOString()
    write(`${JSON.stringify({ log: 'audit', timestamp, ...line })}\n`)
  }

  /**
   * Counts a failure before the signature; within a second those of one code and address become
   * one line with their `count`, so that a flood cannot fill the disk.
   */
  aggregate(code: string, address: string, line: AuditLine): void {
    if (!this.#options.isEnabled()) return
    const known = this.#groups.get(`${code} ${address}`)
    const key = known !== undefined || this.#groups.size < GROUPS_MAX ? `${code} ${address}` : code
    const group = known ?? this.#groups.get(key)
    if (group !== undefined) group.count += 1
    else {
      // Past the bound a line stands for many addresses, and names none.
      this.#groups.set(key, { line: key === code ? { event: line.event, code } : line, count: 1 })
    }
    this.#cancelFlush ??= this.#options.clock.after(FLUSH_MS, () => this.flush())
  }

  /** Writes what was counted so far. */
  flush(): void {
    this.#cancelFlush?.()
    this.#cancelFlush = undefined
    for (const { line, count } of this.#groups.values()) this.write({ ...line, count })
    this.#groups.clear()
  }
}
