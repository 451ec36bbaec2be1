/** What is true of the simulated cluster, heard of or not: what the oracle judges by. */

import type { Told, ToldList } from './deliveries.ts'
import type { Peer } from './network.ts'

/**
 * Where trouble is: on the way to a peer, in the watches alone, while the API server answers, in
 * their delay: what they tell is old, and they are not silent; in their beginning, which is not
 * answered; or in the answers to reviews alone.
 */
export type Place = Peer | 'watches' | 'delay' | 'opening' | 'reviews'

/** What a configuration allows. */
export type SimPolicy = {
  readonly accounts: readonly string[]
  readonly commands: readonly string[]
}

export type PodTruth = {
  readonly name: string
  readonly uid: string
  readonly account: string
  /** Each address it has had, and until when; the last one is its own now. */
  readonly addresses: { readonly address: string; untilMs: number; toldUntilMs?: number }[]
  /** When it began to end, and when its object was gone. */
  terminatingAt?: number
  graceMs?: number
  goneAt?: number
  /** The same, as the sidecar was told by its watch. */
  toldTerminatingAt?: number
  toldGoneAt?: number
}

type Gone = {
  readonly uid: string
  readonly name: string
  /** Of a pod, its account; of an account, its own name. */
  readonly account: string
  readonly goneAt: number
}

type ToldGone = {
  readonly kind: string
  readonly now: number
  readonly isTold: (other: Gone) => boolean
}

type Troubles = { readonly periods: Period[]; open: number }

type Period = { readonly fromMs: number; untilMs: number }

type PolicyPeriod = Period & {
  readonly accounts: ReadonlySet<string>
  readonly commands: ReadonlySet<string>
}

/** All times are on the monotonic clock, in milliseconds. */
export class Truth {
  readonly pods = new Map<string, PodTruth>()
  /** When each account was deleted, by uid, and when the sidecar was told. */
  readonly accountsGone = new Map<string, number>()
  readonly accountsTold = new Map<string, number>()
  /** The names of those. */
  readonly #namesOfGone = new Map<string, string>()
  /** When the way to a peer was not as it should be; to the API server, watches included. */
  readonly #troubles = new Map<Place, Troubles>()
  /** The accounts that were allowed in, with which commands, and when. */
  readonly #policies: PolicyPeriod[] = []

  allow(now: number, { accounts, commands }: SimPolicy): void {
    const last = this.#policies.at(-1)
    if (last !== undefined) last.untilMs = now
    this.#policies.push({
      fromMs: now,
      untilMs: Infinity,
      accounts: new Set(accounts),
      commands: new Set(commands),
    })
  }

  accountGone(uid: string, name: string, now: number): void {
    this.accountsGone.set(uid, now)
    this.#namesOfGone.set(uid, name)
  }

  /** The sidecar was told of an object by its watch. */
  tell({ uid, kind, name, isGone, isTerminating, addresses }: Told, now: number): void {
    // A name belongs to one object at a time: who had it before is gone, and nothing is said of who has it next.
    const endsAt =
      (kind === 'ServiceAccount' ? this.accountsGone.get(uid) : this.pods.get(uid)?.goneAt) ??
      Infinity
    this.#tellOthersGone({
      kind,
      now,
      isTold: (other) => other.uid !== uid && other.name === name && other.goneAt < endsAt,
    })
    if (kind === 'ServiceAccount') {
      if (isGone && !this.accountsTold.has(uid)) this.accountsTold.set(uid, now)
      return
    }
    const pod = this.pods.get(uid)
    if (pod === undefined) return
    if (isGone) pod.toldGoneAt ??= now
    if (isTerminating) pod.toldTerminatingAt ??= now
    // An event may come late: it says nothing about the addresses that came after.
    const newest = pod.addresses.findLastIndex(({ address }) => addresses.includes(address))
    for (const each of pod.addresses.slice(0, Math.max(0, newest))) each.toldUntilMs ??= now
  }

  /** The sidecar was told of all objects of an account by a list: who is not among them is gone. */
  tellList({ kind, account, uids, decidedMs }: ToldList, now: number): void {
    const isTold = (other: Gone) =>
      other.account === account && other.goneAt <= decidedMs && !uids.has(other.uid)
    this.#tellOthersGone({ kind, now, isTold })
  }

  /** Only who is gone in truth can have been told to be. */
  #tellOthersGone({ kind, now, isTold }: ToldGone): void {
    if (kind === 'ServiceAccount') {
      for (const [uid, goneAt] of this.accountsGone) {
        if (this.accountsTold.has(uid)) continue
        const name = this.#namesOfGone.get(uid) ?? ''
        if (isTold({ uid, name, account: name, goneAt })) this.accountsTold.set(uid, now)
      }
      return
    }
    for (const pod of this.pods.values()) {
      const { goneAt, toldGoneAt } = pod
      if (goneAt === undefined || toldGoneAt !== undefined) continue
      if (isTold({ ...pod, goneAt })) pod.toldGoneAt = now
    }
  }

  /** Whether a policy that was in force then allowed all of these commands. */
  wereCommandsAllowed(commands: readonly string[], fromMs: number, untilMs: number): boolean {
    return this.#policies.some(
      (each) =>
        each.fromMs <= untilMs &&
        each.untilMs >= fromMs &&
        commands.every((command) => each.commands.has(command)),
    )
  }

  /** When the policy in force stopped to allow some of these commands; `undefined` while it does. */
  commandsForbiddenSince(commands: readonly string[]): number | undefined {
    const allows = (each: PolicyPeriod) => commands.every((command) => each.commands.has(command))
    const last = this.#policies.at(-1)
    if (last === undefined || allows(last)) return undefined
    return this.#policies.findLast(allows)?.untilMs ?? 0
  }

  /** Whether every policy that was in force then allowed an account. */
  wasAlwaysAllowed(account: string, fromMs: number, untilMs: number): boolean {
    return this.#policies.every(
      (each) => each.fromMs > untilMs || each.untilMs < fromMs || each.accounts.has(account),
    )
  }

  /** What the policy in force allows of these commands. */
  allowedOf(commands: readonly string[]): readonly string[] {
    const last = this.#policies.at(-1)
    return commands.filter((command) => last?.commands.has(command) === true)
  }

  /** When the policy in force stopped to allow an account; `undefined` while it does. */
  forbiddenSince(account: string): number | undefined {
    const last = this.#policies.at(-1)
    if (last === undefined || last.accounts.has(account)) return undefined
    const allowed = this.#policies.findLast(({ accounts }) => accounts.has(account))
    return allowed?.untilMs ?? 0
  }

  /** The way to a peer is in trouble until the returned function is called. */
  trouble(peer: Place, now: () => number): () => void {
    const troubles = this.#troubles.get(peer) ?? { periods: [], open: 0 }
    this.#troubles.set(peer, troubles)
    troubles.open += 1
    if (troubles.open === 1) troubles.periods.push({ fromMs: now(), untilMs: Infinity })
    let isOver = false
    return () => {
      if (isOver) return
      isOver = true
      troubles.open -= 1
      const last = troubles.periods.at(-1)
      if (troubles.open === 0 && last !== undefined) last.untilMs = now()
    }
  }

  /** The end of the last trouble that touches this period; `undefined` where it was quiet. */
  lastTrouble(peer: Place, fromMs: number, untilMs: number): number | undefined {
    return this.#troubles
      .get(peer)
      ?.periods.findLast((each) => each.fromMs <= untilMs && each.untilMs >= fromMs)?.untilMs
  }
}
