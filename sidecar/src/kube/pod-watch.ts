/** The pod watch, in client-go an informer: which pods and ServiceAccounts live or just went. */

import type { LRUCache } from 'lru-cache'
import { ttlCache } from '../lib/bounded-lru.ts'
import type { Clock } from '../lib/clock.ts'
import { Outage } from '../lib/outage.ts'
import type { KubeClient } from './client.ts'
import { PodAddresses } from './pod-addresses.ts'
import { readAccount, readPod, type WatchedAccount, type WatchedPod } from './pod.ts'
import { Reflector } from './reflector.ts'
import { collectionOf, coveredBy, describeScope, keyOf, type Covered, type Scope } from './scope.ts'
import { Waiters } from './waiters.ts'
import type { WatchClient } from './watch-stream.ts'
import { WatchedScopes } from './watched-scopes.ts'

export type PodWatchOptions = {
  readonly lists: Pick<KubeClient, 'request'>
  readonly watches: Pick<WatchClient, 'open'>
  readonly clock: Clock
  readonly random: () => number
  /**
   * A watch went down: of which resource, in which scope, and why. Told once an outage. `findCause`
   * gives the newest error: a watch often ends for another reason than it cannot be opened again.
   */
  readonly onDown: (watch: WatchName, findCause: () => unknown) => void
  /** It works again. The time it was down is in milliseconds. */
  readonly onUp: (watch: WatchName, downMs: number) => void
}

/** Which watch: `namespace openclaw`, and `pods` or `serviceaccounts`. */
type WatchName = { readonly scope: string; readonly resource: string }

/** A listener to pods and ServiceAccounts (client-go: an informer's event handler). */
export type PodListener = {
  /** The pod's object is gone, or a new pod has its name. */
  readonly podGone?: (pod: WatchedPod) => void
  /** The pod lost an address, or another property its streams were admitted by has changed. */
  readonly podChanged?: (pod: WatchedPod) => void
  /** The pod is being deleted, or has ended: no new stream may come from it. */
  readonly podEnding?: (pod: WatchedPod) => void
  readonly accountGone?: (account: WatchedAccount) => void
  /** All pods of a scope are known, for the first time or again. */
  readonly scopeSynced?: () => void
}

/**
 * How long a deleted pod is remembered, so that its tokens are refused at once, in milliseconds.
 */
const GONE_TTL_MS = 10 * 60_000
const GONE_MAX = 20_000

export class PodWatch {
  readonly #options: PodWatchOptions
  readonly #pods = new Map<string, WatchedPod>()
  readonly #addresses = new PodAddresses()
  /** When each ending pod was first seen to end, on the monotonic clock. */
  readonly #endingSince = new Map<string, number>()
  readonly #accounts = new Map<string, WatchedAccount>()
  readonly #gone: LRUCache<string, true>
  readonly #waiters: Waiters
  /** Which scopes are watched, and how far each can be trusted. */
  readonly scopes = new WatchedScopes()
  readonly #listeners: PodListener[] = []

  constructor(options: PodWatchOptions) {
    this.#options = options
    this.#waiters = new Waiters(options.clock)
    this.#gone = ttlCache({ entriesMax: GONE_MAX, ttlMs: GONE_TTL_MS, clock: options.clock })
  }

  /** Tells `listener` of everything from now on, after the earlier listeners. */
  subscribe(listener: PodListener): void {
    this.#listeners.push(listener)
  }

  /** Pods in memory. */
  get size(): number {
    return this.#pods.size
  }

  /** Watches these scopes from now on, and no others. */
  watch(scopes: readonly Scope[]): void {
    const wanted = new Map(scopes.map((scope) => [keyOf(scope), scope]))
    for (const { scope, stop } of this.scopes.list()) {
      if (wanted.has(keyOf(scope))) continue
      stop()
      this.scopes.remove(scope)
      this.#forget(scope, scopes)
    }
    for (const scope of wanted.values()) if (!this.scopes.has(scope)) this.#start(scope)
  }

  stop(): void {
    this.watch([])
  }

  listPods(): Iterable<WatchedPod> {
    return this.#pods.values()
  }

  listAccounts(): Iterable<WatchedAccount> {
    return this.#accounts.values()
  }

  find(podUid: string): WatchedPod | undefined {
    return this.#pods.get(podUid)
  }

  /** Whether a watched pod has this address. */
  hasAddress(address: string): boolean {
    return this.#addresses.has(address)
  }

  /** The watched pods that have this address and have not ended. */
  listAt(address: string): readonly WatchedPod[] {
    // Strangers must not cost a walk over all pods.
    if (!this.hasAddress(address)) return []
    return [...this.#pods.values()].filter((pod) => pod.ips.includes(address) && !hasEnded(pod))
  }

  findAccount(namespace: string, name: string): WatchedAccount | undefined {
    return this.#accounts.get(`${namespace}/${name}`)
  }

  /** Whether the pod is watched and not about to end. */
  isAlive(podUid: string): boolean {
    const pod = this.#pods.get(podUid)
    return pod !== undefined && !isEnding(pod)
  }

  /** Whether this pod, or this ServiceAccount, was seen to disappear. */
  isGone(uid: string): boolean {
    return this.#gone.has(uid)
  }

  /** Milliseconds since the pod was seen to end; `undefined` while it is not ending. */
  terminatingForMs(podUid: string): number | undefined {
    const since = this.#endingSince.get(podUid)
    return since === undefined ? undefined : this.#options.clock.monotonic() - since
  }

  /** Resolves when the pod has an address, or that one, or is gone, or after `ms` milliseconds. */
  waitFor(podUid: string, ms: number, address?: string): Promise<void> {
    return this.#wait(podUid, ms, () => {
      const { ips = [] } = this.#pods.get(podUid) ?? {}
      return address === undefined ? ips.length > 0 : ips.includes(address)
    })
  }

  /** Resolves when the ServiceAccount with this uid is shown, or is gone, or after `ms` milliseconds. */
  waitForAccount(uid: string, ms: number): Promise<void> {
    return this.#wait(uid, ms, () => [...this.#accounts.values()].some((item) => item.uid === uid))
  }

  #wait(uid: string, ms: number, isThere: () => boolean): Promise<void> {
    return this.#waiters.wait(uid, ms, () => this.#gone.has(uid) || isThere())
  }

  #start(scope: Scope): void {
    const { lists, watches, clock, random } = this.#options
    const common = { lists, watches, clock, random }
    const covers = coveredBy(scope)
    // One map for each scope: only the events of one watch are ordered.
    const uids = new Map<string, string>()
    const podsOutage = this.#outageOf(scope, 'pods')
    const pods = new Reflector<WatchedPod>({
      ...common,
      ...podsOutage.events,
      collection: collectionOf('pods', 'spec.serviceAccountName', scope),
      read: readPod,
      onReplaced: (list) => {
        this.#replacePods(list, covers)
        uids.clear()
        for (const pod of list) uids.set(nameOf(pod), pod.uid)
      },
      onChanged: (pod) => this.#takeName(pod, uids),
      onDeleted: (pod) => {
        if (uids.get(nameOf(pod)) === pod.uid) uids.delete(nameOf(pod))
        this.#removePod(pod)
      },
    })
    const accountsOutage = this.#outageOf(scope, 'serviceaccounts')
    const accounts = new Reflector<WatchedAccount>({
      ...common,
      ...accountsOutage.events,
      collection: collectionOf('serviceaccounts', 'metadata.name', scope),
      read: readAccount,
      onReplaced: (list) => this.#replaceAccounts(list, covers),
      onChanged: (account) => this.#putAccount(account),
      onDeleted: (account) => this.#removeAccount(account),
    })
    const parts = [pods, accounts, podsOutage, accountsOutage]
    this.scopes.add({ scope, pods, accounts, stop: () => parts.forEach((part) => part.stop()) })
    void pods.run()
    void accounts.run()
  }

  #outageOf(scope: Scope, resource: string) {
    const { clock, onDown, onUp } = this.#options
    const watch = { scope: describeScope(scope), resource }
    let wasLive = false
    const tellSynced = () => {
      wasLive = true
      this.#tell((listener) => listener.scopeSynced?.())
    }
    const outage: Outage = new Outage({
      clock,
      onBegin: () => onDown(watch, () => outage.lastError),
      onEnd(downMs) {
        onUp(watch, downMs)
        tellSynced()
      },
    })
    const events = {
      onFault: (error: unknown) => outage.failed(error),
      onLive() {
        outage.worked()
        if (!wasLive) tellSynced()
      },
    }
    return { events, stop: () => outage.stop() }
  }

  #replacePods(list: readonly WatchedPod[], covers: (pod: WatchedPod) => boolean): void {
    const uids = new Set(list.map(({ uid }) => uid))
    for (const pod of this.#pods.values()) {
      if (covers(pod) && !uids.has(pod.uid)) this.#removePod(pod)
    }
    for (const pod of list) this.#putPod(pod)
  }

  /** A name belongs to one pod at a time: the pod that had it before is gone. */
  #takeName(pod: WatchedPod, uids: Map<string, string>): void {
    // A late event must not bring back a pod that was seen to disappear.
    if (this.#gone.has(pod.uid)) return
    const before = this.#pods.get(uids.get(nameOf(pod)) ?? '')
    if (before !== undefined && before.uid !== pod.uid) this.#removePod(before)
    uids.set(nameOf(pod), pod.uid)
    this.#putPod(pod)
  }

  #putPod(pod: WatchedPod): void {
    if (this.#gone.has(pod.uid)) return
    const before = this.#pods.get(pod.uid)
    this.#pods.set(pod.uid, pod)
    this.#addresses.replace(before, pod)
    if (before !== undefined && isRebound(before, pod))
      this.#tell((listener) => listener.podChanged?.(pod))
    if (isEnding(pod) && (before === undefined || !isEnding(before))) {
      this.#endingSince.set(pod.uid, this.#options.clock.monotonic())
      this.#tell((listener) => listener.podEnding?.(pod))
    }
    this.#waiters.wake(pod.uid)
  }

  #removePod(pod: WatchedPod): void {
    this.#addresses.replace(this.#pods.get(pod.uid), undefined)
    this.#pods.delete(pod.uid)
    this.#endingSince.delete(pod.uid)
    this.#gone.set(pod.uid, true)
    this.#tell((listener) => listener.podGone?.(pod))
    this.#waiters.wake(pod.uid)
  }

  #replaceAccounts(list: readonly WatchedAccount[], covers: (item: WatchedAccount) => boolean) {
    const uids = new Set(list.map(({ uid }) => uid))
    for (const account of this.#accounts.values()) {
      if (covers(account) && !uids.has(account.uid)) this.#removeAccount(account)
    }
    for (const account of list) this.#putAccount(account)
  }

  #putAccount(account: WatchedAccount): void {
    const key = `${account.namespace}/${account.name}`
    const before = this.#accounts.get(key)
    if (before !== undefined && before.uid !== account.uid) this.#removeAccount(before)
    this.#accounts.set(key, account)
    this.#waiters.wake(account.uid)
  }

  #removeAccount(account: WatchedAccount): void {
    const key = `${account.namespace}/${account.name}`
    if (this.#accounts.get(key)?.uid === account.uid) this.#accounts.delete(key)
    this.#gone.set(account.uid, true)
    this.#tell((listener) => listener.accountGone?.(account))
    this.#waiters.wake(account.uid)
  }

  /**
   * A scope is no longer watched. Its pods become unknown, which does not end them. What another
   * scope takes over is kept, so that its first list shows what disappeared in between.
   */
  #forget(scope: Scope, wanted: readonly Scope[]): void {
    const kept = wanted.map(coveredBy)
    const isLost = (item: Covered) => coveredBy(scope)(item) && !kept.some((covers) => covers(item))
    for (const [uid, pod] of this.#pods) {
      if (!isLost(pod)) continue
      this.#addresses.replace(pod, undefined)
      this.#pods.delete(uid)
      this.#endingSince.delete(uid)
    }
    for (const [key, account] of this.#accounts) if (isLost(account)) this.#accounts.delete(key)
  }

  #tell(tell: (listener: PodListener) => void): void {
    for (const listener of this.#listeners) tell(listener)
  }
}

const nameOf = ({ namespace, name }: WatchedPod): string => `${namespace}/${name}`

/**
 * Whether a stream bound to the pod may no longer be. A pod's first address affects none: no stream
 * is bound before it.
 */
const isRebound = (before: WatchedPod, after: WatchedPod): boolean =>
  before.serviceAccount !== after.serviceAccount ||
  before.isHostNetwork !== after.isHostNetwork ||
  before.ips.some((ip) => !after.ips.includes(ip))

/** Whether no container of the pod runs any more: another pod can have its address. */
const hasEnded = ({ phase }: WatchedPod): boolean => phase === 'Succeeded' || phase === 'Failed'

/** Whether the pod is terminating or has ended. */
const isEnding = (pod: WatchedPod): boolean => pod.terminationSeconds !== undefined || hasEnded(pod)
