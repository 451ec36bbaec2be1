/** The refusals of the last hour: few entries, however many callers there are. */

import type { LRUCache } from 'lru-cache'
import type { Code } from '../denial.ts'
import type { Account } from '../identity.ts'
import { addressGroup } from '../lib/address-group.ts'
import { ttlCache } from '../lib/bounded-lru.ts'
import type { Clock } from '../lib/clock.ts'
import { RollingCount } from '../lib/rolling-count.ts'
import { Tally } from '../lib/tally.ts'

/** A pod, as a token names it; one that is bound to no pod names only its ServiceAccount. */
type NamedPod = Account & { readonly podName?: string }

export type RefusedCaller = {
  readonly code: Code
  readonly address: string
  /** The route of session hosting that was asked for. */
  readonly route?: string | undefined
  /** `undefined` where no token was read. */
  readonly pod: NamedPod | undefined
  /** Whether the signature of the token is valid: otherwise anybody can have written the name. */
  readonly isSigned: boolean
}

/** Refusals with one code, of one address (of an IPv6 network) and one pod. */
export type RecentRefusal = RefusedCaller & {
  /** Unproven names beyond the first few of their address are counted together. */
  readonly isOfManyPods: boolean
  /** Those of the last hour, to the minute. */
  readonly count: number
  /** Of those that are counted; wall time, in milliseconds. */
  readonly firstAt: number
  readonly lastAt: number
}

/** For signed and for unsigned tokens each, so that forged names displace no proven one. */
const ENTRIES_MAX = 100
const KEPT_MS = 60 * 60 * 1000
const PURGE_MS = 60 * 1000
/** Unproven names that one address gets listed for a code. */
const UNSIGNED_PODS_MAX = 4
/** As Kubernetes bounds a pod's name; the name in an unsigned token has less room. */
const NAME_LENGTH_MAX = { signed: 253, unsigned: 64 }

/** `source`: what the bound on unproven names counts by. */
type Entry = {
  readonly source: string
  readonly refusal: Omit<RecentRefusal, 'count'>
  readonly counts: RollingCount
}

export class RecentRefusals {
  readonly #clock: Clock
  readonly #signed: LRUCache<string, Entry>
  readonly #unsigned: LRUCache<string, Entry>
  /** The unproven names listed, by code and address. */
  readonly #unsignedPods = new Tally()
  #purgedAt = 0

  constructor(clock: Clock) {
    this.#clock = clock
    const bounds = { entriesMax: ENTRIES_MAX, ttlMs: KEPT_MS, clock }
    this.#signed = ttlCache<Entry>(bounds)
    this.#unsigned = ttlCache<Entry>({
      ...bounds,
      onEvicted: ({ source, refusal }) => {
        if (isNamedUnsigned(refusal)) this.#unsignedPods.remove(source)
      },
    })
  }

  add(caller: RefusedCaller): void {
    const { code, address, route, isSigned } = caller
    const cache = isSigned ? this.#signed : this.#unsigned
    const pod = cutNames(caller)
    const now = this.#clock.now()
    this.#purge(PURGE_MS)
    const source = `${code} ${addressGroup(address)} ${route ?? ''}`
    const own = `${source} ${nameOf(pod)}`
    const isOfManyPods = !cache.has(own) && this.#isFull(source, { ...caller, pod })
    const key = isOfManyPods ? source : own
    const known = cache.get(key)
    const counts = known?.counts ?? new RollingCount()
    counts.add(this.#clock.monotonic())
    const refusal = {
      code,
      address,
      route,
      isSigned,
      isOfManyPods,
      pod: isOfManyPods ? undefined : pod,
      firstAt: known?.refusal.firstAt ?? now,
      lastAt: now,
    }
    // Before `set`, which tells that the known entry has left.
    if (isNamedUnsigned(refusal)) this.#unsignedPods.add(source)
    cache.set(key, { source, refusal, counts })
  }

  /** The latest first. */
  list(): readonly RecentRefusal[] {
    this.#purge(0)
    return [this.#signed, this.#unsigned]
      .flatMap((cache) => [...cache.values()])
      .map((entry) => this.#countOf(entry))
      .toSorted((a, b) => b.lastAt - a.lastAt)
  }

  /** An entry that is refused again and again is kept, and what is older than an hour no longer counts. */
  #countOf({ refusal, counts }: Entry): RecentRefusal {
    const now = this.#clock.monotonic()
    const countedSince = this.#clock.now() - counts.ageMaxMs(now)
    const firstAt = Math.max(refusal.firstAt, countedSince)
    return { ...refusal, firstAt, count: counts.sum(now) }
  }

  /** Names that are over make room for others; in a flood not at every refusal. */
  #purge(everyMs: number): void {
    const now = this.#clock.monotonic()
    if (now - this.#purgedAt < everyMs) return
    this.#purgedAt = now
    this.#signed.purgeStale()
    this.#unsigned.purgeStale()
  }

  #isFull(source: string, caller: RefusedCaller): boolean {
    return isNamedUnsigned(caller) && this.#unsignedPods.of(source) >= UNSIGNED_PODS_MAX
  }
}

const isNamedUnsigned = ({ isSigned, pod }: RefusedCaller): boolean =>
  !isSigned && pod !== undefined

/** JSON, since an unsigned name can contain any separator. */
const nameOf = (pod: NamedPod | undefined): string =>
  pod === undefined ? '' : JSON.stringify([pod.namespace, pod.serviceAccount, pod.podName])

function cutNames({ pod, isSigned }: RefusedCaller): NamedPod | undefined {
  if (pod === undefined) return undefined
  const lengthMax = isSigned ? NAME_LENGTH_MAX.signed : NAME_LENGTH_MAX.unsigned
  const cut = (name: string) => name.slice(0, lengthMax)
  return {
    namespace: cut(pod.namespace),
    serviceAccount: cut(pod.serviceAccount),
    ...(pod.podName === undefined ? {} : { podName: cut(pod.podName) }),
  }
}
