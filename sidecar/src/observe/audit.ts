/** The audit stream: a line for each admission, each end, and each kind of refusal in a second. */

import type { Code } from '../denial.ts'
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
  readonly code: Code
  readonly address: string
  readonly podUid: string | undefined
  /** The route of session hosting that was asked for. */
  readonly route?: string | undefined
}

/** What a refused token says about its worker, in the audit's words. Nothing of it is verified. */
export type ClaimedFields = Readonly<Record<string, unknown>>

/** The most lines of refusals a second; what is over shares the last one. */
const LINES_MAX = 100
/** The most distinct claims that a line shows. */
const CLAIMS_MAX = 3
const FLUSH_MS = 1000

type Counted = {
  readonly line: AuditLine
  readonly address: string
  count: number
  isMixed: boolean
  /** By their JSON, in the order in which they came. */
  readonly claimed: Map<string, ClaimedFields>
  /** Refusals with yet another claim. */
  otherClaims: number
}

export class Audit {
  readonly #options: AuditOptions
  readonly #groups = new Map<string, Counted>()
  /** Refusals that found no line, by code. */
  readonly #rest = new Map<Code, number>()
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
   * that a flood cannot fill the disk. The first refusal provides the line; what each of them claims
   * is gathered.
   */
  aggregate(group: AuditGroup, line: AuditLine, claimed?: ClaimedFields): void {
    if (!this.#options.isEnabled()) return
    this.#cancelFlush ??= this.#options.clock.after(FLUSH_MS, () => this.flush())
    const counted = this.#groupOf(group, line)
    if (counted === undefined) {
      this.#rest.set(group.code, (this.#rest.get(group.code) ?? 0) + 1)
      return
    }
    counted.count += 1
    counted.isMixed ||= counted.address !== group.address
    if (claimed !== undefined) addClaim(counted, claimed)
  }

  /** Writes what has been counted so far. */
  flush(): void {
    this.#cancelFlush?.()
    this.#cancelFlush = undefined
    for (const counted of this.#groups.values()) this.write(lineOf(counted))
    this.#groups.clear()
    if (this.#rest.size === 0) return
    const counts = [...this.#rest.values()]
    this.write({
      event: 'k8s-auth-failed',
      codes: Object.fromEntries(this.#rest),
      count: counts.reduce((sum, count) => sum + count, 0),
    })
    this.#rest.clear()
  }

  /** The group that a refusal belongs to; `undefined` where there is no line left for it. */
  #groupOf({ code, address, podUid, route }: AuditGroup, line: AuditLine): Counted | undefined {
    const key = `${code} ${addressGroup(address)} ${podUid ?? ''} ${route ?? ''}`
    const known = this.#groups.get(key)
    if (known !== undefined) return known
    // The last line is that of the rest.
    if (this.#groups.size >= LINES_MAX - 1) return undefined
    const claimed = new Map<string, ClaimedFields>()
    const counted = { line, address, count: 0, isMixed: false, claimed, otherClaims: 0 }
    this.#groups.set(key, counted)
    return counted
  }
}

function addClaim(counted: Counted, claimed: ClaimedFields): void {
  const key = JSON.stringify(claimed)
  if (counted.claimed.has(key)) return
  if (counted.claimed.size < CLAIMS_MAX) counted.claimed.set(key, claimed)
  else counted.otherClaims += 1
}

function lineOf({ line, address, count, isMixed, claimed, otherClaims }: Counted): AuditLine {
  const [first, ...more] = claimed.values()
  return {
    ...line,
    // `remoteIp` is the first one's address; the others came from the same network.
    ...(isMixed ? { remotePrefix: addressGroup(address) } : {}),
    ...(first === undefined ? {} : { unverified: true, claimed: first }),
    ...(more.length === 0 ? {} : { alsoClaimed: more }),
    ...(otherClaims === 0 ? {} : { otherClaims }),
    count,
  }
}
