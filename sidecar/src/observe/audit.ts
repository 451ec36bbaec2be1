/** The audit stream: a line for each admission, each end, and each kind of refusal in a second. */

import { addressGroup } from '../lib/address-group.ts'
import type { Clock } from '../lib/clock.ts'

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

/** What refusals in one line have in common; `podUid` is known once a signature is verified. */
export type AuditGroup = {
  readonly code: string
  readonly address: string
  readonly podUid: string | undefined
  /** The route of session hosting that was asked for. */
  readonly route?: string | undefined
}

/** The most groups of refusals a second, by code, address and pod. */
const GROUPS_MAX = 1000
const FLUSH_MS = 1000

type Counted = {
  readonly line: AuditLine
  readonly address: string
  count: number
  isMixed: boolean
}

export class Audit {
  readonly #options: AuditOptions
  readonly #groups = new Map<string, Counted>()
  #cancelFlush: (() => void) | undefined

  constructor(options: AuditOptions) {
    this.#options = options
  }

  /** Writes one line. */
  write(line: AuditLine): void {
    const { clock, isEnabled, write } = this.#options
    if (!isEnabled()) return
    const timestamp = new Date(clock.now()).toISOString()
    write(`${JSON.stringify({ log: 'audit', timestamp, ...line })}\n`)
  }

  /**
   * Counts a refusal. Refusals of one group within a second become one line with their `count`, so
   * that a flood cannot fill the disk. The first refusal provides the line.
   */
  aggregate({ code, address, podUid, route }: AuditGroup, line: AuditLine): void {
    if (!this.#options.isEnabled()) return
    const own = `${code} ${addressGroup(address)} ${podUid ?? ''} ${route ?? ''}`
    // Beyond the bound a line covers many addresses, and names none.
    const isFull = !this.#groups.has(own) && this.#groups.size >= GROUPS_MAX
    const key = isFull ? code : own
    const counted = this.#groups.get(key)
    if (counted === undefined) {
      const kept = isFull ? { event: line.event, code } : line
      this.#groups.set(key, { line: kept, address, count: 1, isMixed: false })
    } else {
      counted.count += 1
      counted.isMixed ||= !isFull && counted.address !== address
    }
    this.#cancelFlush ??= this.#options.clock.after(FLUSH_MS, () => this.flush())
  }

  /** Writes what has been counted so far. */
  flush(): void {
    this.#cancelFlush?.()
    this.#cancelFlush = undefined
    for (const { line, address, count, isMixed } of this.#groups.values()) {
      // `remoteIp` is the first one's address; the others came from the same network.
      const more = isMixed ? { remotePrefix: addressGroup(address) } : {}
      this.write({ ...line, ...more, count })
    }
    this.#groups.clear()
  }
}
