/** Pod binding: a token is good only from the live pod it names, and from that pod's address. */

import { LRUCache } from 'lru-cache'
import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Code, type Denied, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import { accountNameOf, type Claims } from '../identity.ts'
import type { WatchedAccount, WatchedPod } from '../kube/pod.ts'
import type { WatchedScopes } from '../kube/watched-scopes.ts'
import { believe, UNASKED, type Belief } from './belief.ts'
import { BELIEVED_MS_MAX, LiveAnswers } from './live-answers.ts'
import { lookAgain, UNSEEN_WAIT_MS, waitForNextWatch, type Doubt } from './second-look.ts'

/** What the watch knows about pods. */
type PodSource = {
  readonly find: (podUid: string) => WatchedPod | undefined
  readonly findAccount: (namespace: string, name: string) => WatchedAccount | undefined
  /** For a pod or a ServiceAccount. */
  readonly isGone: (uid: string) => boolean
  /** Resolves when the pod has an address, or that one, or is gone, or after `ms` milliseconds. */
  readonly waitFor: (podUid: string, ms: number, address?: string) => Promise<void>
  /** Resolves when the ServiceAccount with this uid is shown, or is gone, or after `ms` milliseconds. */
  readonly waitForAccount: (uid: string, ms: number) => Promise<void>
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

const PLACES_MAX = 1000

const placeOf = ({ claims, address }: Caller): string => `${claims.podUid} ${address}`

export class PodBinding {
  readonly #options: PodBindingOptions
  readonly #livePods: LiveAnswers<WatchedPod>
  /** When a pod's token was last refused at an address, on the monotonic clock. */
  readonly #elsewhere = new LRUCache<string, number>({ max: PLACES_MAX })
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
   * says whether the watch's last state is enough when the API server cannot be asked. Returns until
   * when what it relied on is believed. Throws a `Fault`.
   */
  async bind(caller: Caller, isOutageTolerated: boolean): Promise<Verdict<Belief>> {
    const since = this.#options.clock.monotonic()
    await this.#options.pods.waitFor(caller.claims.podUid, UNSEEN_WAIT_MS)
    const unseen = await this.#decideUnseen(caller, since)
    if (unseen !== undefined) return unseen
    const shown = await this.#lookAtAccount(caller, since)
    if (!shown.ok) return shown
    const seen = await this.#lookAtAddress(caller, since)
    if (!seen.ok) return seen
    const { clock } = this.#options
    return believe(this.#doubts(caller, since), UNASKED, { clock, isOutageTolerated })
  }

  /** Whether what `bind` relied on is too old by now, and its watch has not said more. Synchronous. */
  isOutdated({ claims }: Caller, believedUntil: Belief): boolean {
    const { clock, pods } = this.#options
    const { scopes } = pods
    const now = clock.monotonic()
    return (
      (now > believedUntil.pod && scopes.silentForMs(claims) > BELIEVED_MS_MAX) ||
      (now > believedUntil.account && scopes.accountsSilentForMs(claims) > BELIEVED_MS_MAX)
    )
  }

  /**
   * Asks once more for what `bind` has asked last and is too old by now. Where one answer comes long
   * after the other, the older one is asked for again, but not a third time. Throws a `Fault`.
   */
  async confirm(
    caller: Caller,
    believedUntil: Belief,
    isOutageTolerated: boolean,
  ): Promise<Verdict<Belief>> {
    const { clock } = this.#options
    const asking = { clock, isOutageTolerated }
    const first = await believe(this.#doubts(caller, clock.monotonic()), believedUntil, asking)
    if (!first.ok) return first
    return believe(this.#doubts(caller, clock.monotonic()), first.value, asking)
  }

  /**
   * Why the watch does not show a caller's pod alive, at its address where that is enforced. For
   * claims that nobody has proven yet: the answer can only refuse. The API server is asked again as in
   * `bind`, but only for a pod that the watch shows under the claimed names: nobody can invent what
   * to ask for. Throws a `Fault`.
   */
  async findUnseen(caller: Caller): Promise<Code | undefined> {
    const { clock, pods } = this.#options
    const { claims } = caller
    const since = clock.monotonic()
    await pods.waitFor(claims.podUid, UNSEEN_WAIT_MS)
    const pod = pods.find(claims.podUid)
    if (pod === undefined && pods.scopes.silentForMs(claims) === Infinity) {
      throw new Fault('pod_unconfirmed', 'The watch is down, and has not shown the claimed pod.')
    }
    if (pod !== undefined && findPodObjection(pod, claims, false) === undefined) {
      const shown = await this.#lookAtAccount(caller, since)
      if (!shown.ok) return shown.code
      const seen = await this.#lookAtAddress(caller, since)
      if (!seen.ok) return seen.code
    }
    const checked = this.check(caller)
    return checked.ok ? undefined : checked.code
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
  async #decideUnseen(caller: Caller, since: number): Promise<Denied | undefined> {
    const { pods } = this.#options
    const { namespace, podName, podUid } = caller.claims
    const isAmiss = () => pods.find(podUid) === undefined && !pods.isGone(podUid)
    if (!isAmiss()) return undefined
    const doubt = this.#podDoubt(caller, since)
    const judged = await doubt.answers.ask(doubt, since)
    if (!judged.ok) return judged
    const wait = (ms: number) => pods.waitFor(podUid, ms)
    await waitForNextWatch(doubt, { isAmiss, wait, missing: `pod ${namespace}/${podName}` })
    return undefined
  }

  /**
   * A ServiceAccount that was just created, or created again, and which the watch does not show yet.
   * Its tokens are good, and its workers must not be told that it was deleted.
   */
  #lookAtAccount(caller: Caller, since: number): Promise<Verdict<undefined>> {
    const { pods } = this.#options
    const { namespace, serviceAccount, serviceAccountUid } = caller.claims
    return lookAgain(this.#accountDoubt(caller, since), {
      isAmiss: () =>
        this.findGone(caller.claims) === undefined &&
        pods.findAccount(namespace, serviceAccount)?.uid !== serviceAccountUid,
      wait: (ms) => pods.waitForAccount(serviceAccountUid, ms),
      missing: `ServiceAccount ${namespace}/${serviceAccount} with the uid of the token`,
    })
  }

  /**
   * A pod that starts has no address yet, and one whose sandbox is made again gets another: the watch
   * may show it a moment later.
   */
  async #lookAtAddress(caller: Caller, since: number): Promise<Verdict<undefined>> {
    const { namespace, podName, podUid } = caller.claims
    const seen = this.check(caller)
    if (!this.#isOnlyAddressAmiss(seen, caller)) return seen
    const doubt = this.#podDoubt(caller, since)
    const repeated = this.#refuseRepetition(caller, doubt)
    if (repeated !== undefined) return repeated
    try {
      const looked = await lookAgain(doubt, {
        isAmiss: () => this.#isOnlyAddressAmiss(this.check(caller), caller),
        wait: (ms) => this.#options.pods.waitFor(podUid, ms, caller.address),
        missing: `pod ${namespace}/${podName} at the worker's address`,
      })
      if (looked.ok) return this.check(caller)
      if (looked.code === 'source_address_mismatch') {
        this.#elsewhere.set(placeOf(caller), this.#options.clock.monotonic())
      }
      return looked
    } catch (error) {
      // Nobody has shown the pod at this address: its worker comes again, and a thief is charged.
      const isUnanswered = error instanceof Fault && error.code === 'pod_unconfirmed'
      if (!isUnanswered || doubt.judge(doubt.answers.find(doubt.key)).ok) throw error
      if (!this.#isElsewhere(caller)) throw error
      throw new Fault('source_address_unconfirmed', error.message, { cause: error })
    }
  }

  /**
   * A token that is used elsewhere again and again costs one request in two seconds, and does not
   * wait for it: a caller who waits has one of the places of the token's pod. At an address that was
   * not refused just now, an answer from before may be too old to refuse.
   */
  #refuseRepetition(
    caller: Caller,
    { answers, key, judge }: Doubt<WatchedPod>,
  ): Denied | undefined {
    if (!this.#isElsewhere(caller)) return undefined
    const recent = answers.find(key)
    if (recent === undefined || judge(recent).ok) return undefined
    const refusedAt = this.#elsewhere.get(placeOf(caller)) ?? -Infinity
    if (this.#options.clock.monotonic() - refusedAt <= BELIEVED_MS_MAX) {
      return denied('source_address_mismatch')
    }
    const what = 'A moment ago the API server showed the pod at another address.'
    throw new Fault('source_address_unconfirmed', what)
  }

  #isElsewhere(caller: Caller): boolean {
    const seen = this.check(caller)
    return !seen.ok && seen.code === 'source_address_mismatch'
  }

  #isOnlyAddressAmiss(seen: Verdict<undefined>, { claims }: Caller): boolean {
    if (seen.ok) return false
    if (seen.code === 'source_address_mismatch') return true
    const isWithoutAddress = this.#options.pods.find(claims.podUid)?.ips.length === 0
    return seen.code === 'pod_unconfirmed' && isWithoutAddress
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

  #doubts(caller: Caller, since: number) {
    return { pod: this.#podDoubt(caller, since), account: this.#accountDoubt(caller, since) }
  }

  #podDoubt(caller: Caller, since: number): Doubt<WatchedPod> {
    const { pods, getPod } = this.#options
    const { namespace, podName, podUid } = caller.claims
    return {
      answers: this.#livePods,
      since,
      key: podUid,
      silentMs: pods.scopes.silentForMs(caller.claims),
      get: () => getPod(namespace, podName),
      judge: (pod) => this.#judge(pod, caller),
      onContradicted: () => pods.scopes.distrustPods(caller.claims),
    }
  }

  /** One request for all pods of the ServiceAccount. */
  #accountDoubt({ claims }: Caller, since: number): Doubt<WatchedAccount> {
    const { pods, getAccount } = this.#options
    const { namespace, serviceAccount, serviceAccountUid } = claims
    return {
      answers: this.#liveAccounts,
      since,
      key: accountNameOf(claims),
      silentMs: pods.scopes.accountsSilentForMs(claims),
      get: () => getAccount(namespace, serviceAccount),
      judge: (account) =>
        account?.uid === serviceAccountUid ? granted(undefined) : denied('service_account_deleted'),
      onContradicted: () => pods.scopes.distrustAccounts(claims),
    }
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
