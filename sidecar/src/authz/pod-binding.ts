/** Pod binding: a token is good only from the live pod it names, and from that pod's address. */

import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Code, type Denied, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import type { Claims } from '../identity.ts'
import type { WatchedAccount, WatchedPod } from '../kube/pod.ts'
import type { WatchedScopes } from '../kube/watched-scopes.ts'
import { BELIEVED_MS_MAX, LiveAnswers } from './live-answers.ts'

/** What the watch knows about pods. */
type PodSource = {
  readonly find: (podUid: string) => WatchedPod | undefined
  readonly findAccount: (namespace: string, name: string) => WatchedAccount | undefined
  /** For a pod or a ServiceAccount. */
  readonly isGone: (uid: string) => boolean
  /** Resolves when the pod has an address, or that one, or is gone, or after `ms` milliseconds. */
  readonly waitFor: (podUid: string, ms: number, address?: string) => Promise<void>
  readonly scopes: Pick<
    WatchedScopes,
    'silentForMs' | 'accountsSilentForMs' | 'distrustPods' | 'distrustAccounts'
  >
}

export type BindingRules = {
  /** `report` only records the source address in the audit line, for networks that hide it. */
  readonly sourceAddress: 'enforce' | 'report'
  readonly allowHostNetwork: boolean
}

export type PodBindingOptions = {
  readonly pods: PodSource
  readonly rules: () => BindingRules
  /** Asks the API server for one pod; `undefined` if it does not exist. Throws a `Fault`. */
  readonly getPod: (namespace: string, name: string) => Promise<WatchedPod | undefined>
  /** The same for one ServiceAccount. */
  readonly getAccount: (namespace: string, name: string) => Promise<WatchedAccount | undefined>
  readonly clock: Clock
}

/** Who wants to be bound: the proven claims, and the address they came from. */
export type Caller = {
  readonly claims: Claims
  readonly address: string
  /** Whether a pod that is being deleted will do, too. */
  readonly mayFinish?: boolean
}

/** How long to wait for a pod that the watch has not shown yet, in milliseconds. */
const UNSEEN_WAIT_MS = 2000

/** What a silent watch leaves uncertain, and how a live answer decides it. */
type Doubt<T extends object> = {
  readonly answers: LiveAnswers<T>
  readonly key: string
  readonly silentMs: number
  readonly get: () => Promise<T | undefined>
  readonly judge: (object: T | undefined) => Verdict<undefined>
  /** The answer contradicts what the watch shows. */
  readonly onContradicted: () => void
}

export class PodBinding {
  readonly #options: PodBindingOptions
  readonly #livePods: LiveAnswers<WatchedPod>
  readonly #liveAccounts: LiveAnswers<WatchedAccount>

  constructor(options: PodBindingOptions) {
    this.#options = options
    this.#livePods = new LiveAnswers(options.clock)
    this.#liveAccounts = new LiveAnswers(options.clock)
  }

  /**
   * Binds a caller to its pod and ServiceAccount. The watch alone is enough only while it delivers
   * events: a silent watch may be dead, so a live answer must then confirm what it shows. That
   * answer must not be older than the last event of a trusted watch may be. `isOutageTolerated`
   * says whether the watch's last state is enough when the API server cannot be asked. Throws a
   * `Fault`.
   */
  async bind(caller: Caller, isOutageTolerated: boolean): Promise<Verdict<undefined>> {
    const { pods } = this.#options
    const { podUid } = caller.claims
    await pods.waitFor(podUid, UNSEEN_WAIT_MS)
    if (this.#isUnseen(podUid)) {
      const unseen = await this.#decideUnseen(caller)
      if (unseen !== undefined) return unseen
    }
    const seen = await this.#lookTwice(caller)
    if (!seen.ok) return seen
    const [pod, account] = await Promise.all([
      confirm(this.#podDoubt(caller), isOutageTolerated),
      confirm(this.#accountDoubt(caller), isOutageTolerated),
    ])
    return pod.ok ? account : pod
  }

  /**
   * Why the watch does not show a caller's pod alive, at its address where that is enforced. For
   * claims that nobody has proven yet: the answer can only refuse.
   */
  async findUnseen(caller: Caller): Promise<Code | undefined> {
    await this.#options.pods.waitFor(caller.claims.podUid, UNSEEN_WAIT_MS)
    const seen = this.check(caller)
    return seen.ok ? undefined : seen.code
  }

  /** What was seen to disappear cannot come back, so no request is needed. */
  findGone({ podUid, serviceAccountUid }: Claims): Code | undefined {
    const { pods } = this.#options
    if (pods.isGone(podUid)) return 'pod_deleted'
    return pods.isGone(serviceAccountUid) ? 'service_account_deleted' : undefined
  }

  /** What the watch says now; synchronous, for the last check before a release. */
  check(caller: Caller): Verdict<undefined> {
    const { pods } = this.#options
    const { podUid, namespace, serviceAccount, serviceAccountUid } = caller.claims
    const gone = this.findGone(caller.claims)
    if (gone !== undefined) return denied(gone)
    const pod = pods.find(podUid)
    if (pod === undefined) return denied('pod_unconfirmed')
    const account = pods.findAccount(namespace, serviceAccount)
    if (account === undefined) return denied('pod_unconfirmed')
    if (account.uid !== serviceAccountUid) return denied('service_account_deleted')
    return this.#judge(pod, caller)
  }

  /**
   * The GET can refuse but never admits by itself: the watch may have missed what happened to the
   * pod. A narrow watch never shows a pod whose ServiceAccount differs from the one its token
   * claims. A pod that the GET shows alive should have been seen by now: another watch gets a moment
   * to show it.
   */
  async #decideUnseen(caller: Caller): Promise<Denied | undefined> {
    const { podUid } = caller.claims
    const { answers, key, get, judge, onContradicted } = this.#podDoubt(caller)
    const judged = judge(await answers.ask(key, get))
    if (!judged.ok) return judged
    onContradicted()
    await this.#options.pods.waitFor(podUid, UNSEEN_WAIT_MS)
    return this.#isUnseen(podUid) ? denied('pod_unconfirmed') : undefined
  }

  /**
   * A pod that starts has no address yet, and one whose sandbox is made again gets another: the watch
   * may show it a moment later. The GET decides only whether that is worth waiting for: in the end the
   * watch has to show it.
   */
  async #lookTwice(caller: Caller): Promise<Verdict<undefined>> {
    const seen = this.check(caller)
    if (!this.#isOnlyAddressAmiss(seen, caller)) return seen
    const { answers, key, silentMs, get, judge, onContradicted } = this.#podDoubt(caller)
    // No watch is open that could show more.
    if (silentMs === Infinity) return seen
    let live: WatchedPod | undefined
    try {
      // A token that is used elsewhere again and again costs one GET in two seconds.
      live = answers.find(key) ?? (await answers.ask(key, get))
    } catch (error) {
      // Nobody could say more than the watch, and the watch shows another address.
      if (error instanceof Fault) return seen
      throw error
    }
    if (!judge(live).ok) return seen
    const first = await this.#waitForAddress(caller)
    if (!this.#isOnlyAddressAmiss(first, caller)) return first
    // It should have been shown by now: another watch gets a moment to show it.
    onContradicted()
    const second = await this.#waitForAddress(caller)
    return this.#isOnlyAddressAmiss(second, caller) ? denied('pod_unconfirmed') : second
  }

  #isOnlyAddressAmiss(seen: Verdict<undefined>, { claims }: Caller): boolean {
    if (seen.ok) return false
    if (seen.code === 'source_address_mismatch') return true
    const isWithoutAddress = this.#options.pods.find(claims.podUid)?.ips.length === 0
    return seen.code === 'pod_unconfirmed' && isWithoutAddress
  }

  async #waitForAddress(caller: Caller): Promise<Verdict<undefined>> {
    await this.#options.pods.waitFor(caller.claims.podUid, UNSEEN_WAIT_MS, caller.address)
    return this.check(caller)
  }

  #isUnseen(podUid: string): boolean {
    const { pods } = this.#options
    return pods.find(podUid) === undefined && !pods.isGone(podUid)
  }

  #judge(
    pod: WatchedPod | undefined,
    { claims, address, mayFinish = false }: Caller,
  ): Verdict<undefined> {
    if (pod === undefined || pod.uid !== claims.podUid) return denied('pod_not_found')
    const objection =
      findPodObjection(pod, claims, mayFinish) ??
      findAddressObjection(pod, address, this.#options.rules())
    return objection === undefined ? granted(undefined) : denied(objection)
  }

  #podDoubt(caller: Caller): Doubt<WatchedPod> {
    const { pods, getPod } = this.#options
    const { namespace, podName, podUid } = caller.claims
    return {
      answers: this.#livePods,
      key: podUid,
      silentMs: pods.scopes.silentForMs(caller.claims),
      get: () => getPod(namespace, podName),
      judge: (pod) => this.#judge(pod, caller),
      onContradicted: () => pods.scopes.distrustPods(caller.claims),
    }
  }

  /** One request for all pods of the ServiceAccount. */
  #accountDoubt({ claims }: Caller): Doubt<WatchedAccount> {
    const { pods, getAccount } = this.#options
    const { namespace, serviceAccount, serviceAccountUid } = claims
    return {
      answers: this.#liveAccounts,
      key: `${namespace}/${serviceAccount}`,
      silentMs: pods.scopes.accountsSilentForMs(claims),
      get: () => getAccount(namespace, serviceAccount),
      judge: (account) =>
        account?.uid === serviceAccountUid ? granted(undefined) : denied('service_account_deleted'),
      onContradicted: () => pods.scopes.distrustAccounts(claims),
    }
  }
}

async function confirm<T extends object>(
  { answers, key, silentMs, get, judge, onContradicted }: Doubt<T>,
  isOutageTolerated: boolean,
): Promise<Verdict<undefined>> {
  if (silentMs <= BELIEVED_MS_MAX) return granted(undefined)
  // While the watch is open a recent answer may admit; only a new answer may refuse.
  if (silentMs < Infinity && judge(answers.find(key)).ok) return granted(undefined)
  try {
    const judged = judge(await answers.ask(key, get))
    if (!judged.ok) onContradicted()
    return judged
  } catch (error) {
    const isOutage = error instanceof Fault && error.code === 'pod_unconfirmed'
    if (isOutage && isOutageTolerated) return granted(undefined)
    throw error
  }
}

function findPodObjection(pod: WatchedPod, claims: Claims, mayFinish: boolean): Code | undefined {
  if (pod.terminationSeconds !== undefined && !mayFinish) return 'pod_terminating'
  if (pod.phase !== 'Pending' && pod.phase !== 'Running') return 'pod_not_running'
  const isClaimed =
    pod.name === claims.podName &&
    pod.namespace === claims.namespace &&
    pod.serviceAccount === claims.serviceAccount
  return isClaimed ? undefined : 'pod_mismatch'
}

function findAddressObjection(
  pod: WatchedPod,
  address: string,
  { sourceAddress, allowHostNetwork }: BindingRules,
): Code | undefined {
  if (pod.isHostNetwork && !allowHostNetwork) return 'host_network_not_allowed'
  if (sourceAddress === 'report') return undefined
  // The kubelet publishes the addresses a moment after the container can already connect.
  if (pod.ips.length === 0) return 'pod_unconfirmed'
  return pod.ips.includes(address) ? undefined : 'source_address_mismatch'
}
