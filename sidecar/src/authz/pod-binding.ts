/** Pod binding: a token is good only from the live pod it names, and from that pod's own address. */

import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import { denied, granted, type Code, type Denied, type Verdict } from '../denial.ts'
import { Fault } from '../fault.ts'
import type { Claims } from '../identity.ts'
import type { WatchedAccount, WatchedPod } from '../kube/pod.ts'
import { normalizeAddress } from '../tunnel/address.ts'

/** What is known of pods, as the watch tells it. */
export type PodSource = {
  readonly find: (podUid: string) => WatchedPod | undefined
  readonly findAccount: (namespace: string, name: string) => WatchedAccount | undefined
  /** Of a pod or a ServiceAccount. */
  readonly isGone: (uid: string) => boolean
  /** Resolves when the pod is seen with an address, is gone, or after `ms` milliseconds. */
  readonly waitFor: (podUid: string, ms: number) => Promise<void>
  /** Milliseconds since the namespace's watch last proved that it is heard; `Infinity` while none is open. */
  readonly silentForMs: (namespace: string) => number
}

export type BindingRules = {
  /** `report` leaves the source address to the audit line, for networks that hide it. */
  readonly sourceAddress: 'enforce' | 'report'
  readonly allowHostNetwork: boolean
}

export type PodBindingOptions = {
  readonly pods: PodSource
  readonly rules: () => BindingRules
  /** Asks the API server about one pod; `undefined` when there is none. Throws `Fault`. */
  readonly getPod: (namespace: string, name: string) => Promise<WatchedPod | undefined>
  readonly clock: Clock
}

/** Who asks to be bound: the proven claims, and where they came from. */
export type Caller = { readonly claims: Claims; readonly address: string }

/** How long a pod the watch has not shown yet is waited for, in milliseconds. */
const UNSEEN_WAIT_MS = 2000
/** What the API server said of a pod longer ago is confirmed by a live GET, in milliseconds. */
const SILENCE_MS_MAX = 2000
/** Pods whose last GET is remembered for that long. */
const CONFIRMED_MAX = 1000

type Confirmed = { readonly pod: WatchedPod; readonly askedAt: number }

export class PodBinding {
  readonly #options: PodBindingOptions
  readonly #flights = new Map<string, Promise<WatchedPod | undefined>>()
  readonly #confirmed = new LRUCache<string, Confirmed>({ max: CONFIRMED_MAX })

  constructor(options: PodBindingOptions) {
    this.#options = options
  }

  /**
   * Binds a caller to its pod. The watch alone admits only while it is heard: silent, it may be
   * dead, and a live GET has to confirm, no older than what a watch is believed for.
   * `isOutageTolerated` says whether a pod the watch last showed alive may do when the API server
   * cannot be asked. Throws `Fault`.
   */
  async bind(caller: Caller, isOutageTolerated: boolean): Promise<Verdict<undefined>> {
    const { pods } = this.#options
    const { podUid, namespace } = caller.claims
    await pods.waitFor(podUid, UNSEEN_WAIT_MS)
    if (pods.find(podUid) === undefined && !pods.isGone(podUid)) return this.#decideUnseen(caller)
    const seen = this.check(caller)
    const silentMs = pods.silentForMs(namespace)
    if (!seen.ok || silentMs <= SILENCE_MS_MAX) return seen
    // Beside an open watch what was said a moment ago may admit; only what is said now may refuse.
    const remembered = silentMs < Infinity && this.#judge(this.#findConfirmed(podUid), caller).ok
    if (remembered) return seen
    try {
      return this.#judge(await this.#getPod(caller), caller)
    } catch (error) {
      if (isOutageTolerated && error instanceof Fault && error.code === 'pod_unconfirmed') {
        return seen
      }
      throw error
    }
  }

  /** What was seen to go cannot come back: known before anybody is asked about it. */
  findGone({ podUid, serviceAccountUid }: Claims): Code | undefined {
    const { pods } = this.#options
    if (pods.isGone(podUid)) return 'pod_deleted'
    return pods.isGone(serviceAccountUid) ? 'service_account_deleted' : undefined
  }

  /** What the watch says now; synchronous, for the last question before a release. */
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
   * The GET may refuse but never admits by itself: the watch may have missed what became of the pod.
   * A narrow watch never shows a pod that has another ServiceAccount than its token claims.
   */
  async #decideUnseen(caller: Caller): Promise<Denied> {
    const judged = this.#judge(await this.#getPod(caller), caller)
    return judged.ok ? denied('pod_unconfirmed') : judged
  }

  #judge(pod: WatchedPod | undefined, { claims, address }: Caller): Verdict<undefined> {
    if (pod === undefined || pod.uid !== claims.podUid) return denied('pod_not_found')
    const objection =
      findPodObjection(pod, claims) ?? findAddressObjection(pod, address, this.#options.rules())
    return objection === undefined ? granted(undefined) : denied(objection)
  }

  /** The pod as a GET has shown it that was sent a moment ago. */
  #findConfirmed(podUid: string): WatchedPod | undefined {
    const confirmed = this.#confirmed.get(podUid)
    if (confirmed === undefined) return undefined
    const ageMs = this.#options.clock.monotonic() - confirmed.askedAt
    return ageMs <= SILENCE_MS_MAX ? confirmed.pod : undefined
  }

  /** One GET serves all that wait for the same pod; they are bounded by the pending admissions. */
  #getPod({ claims }: Caller): Promise<WatchedPod | undefined> {
    const known = this.#flights.get(claims.podUid)
    if (known !== undefined) return known
    const flight = this.#ask(claims).finally(() => this.#flights.delete(claims.podUid))
    this.#flights.set(claims.podUid, flight)
    return flight
  }

  async #ask({ namespace, podName, podUid }: Claims): Promise<WatchedPod | undefined> {
    const { getPod, clock } = this.#options
    const askedAt = clock.monotonic()
    const pod = await getPod(namespace, podName)
    if (pod?.uid === podUid) this.#confirmed.set(podUid, { pod, askedAt })
    else this.#confirmed.delete(podUid)
    return pod
  }
}

function findPodObjection(pod: WatchedPod, claims: Claims): Code | undefined {
  if (pod.terminationSeconds !== undefined) return 'pod_terminating'
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
  // The kubelet writes the addresses a moment after the container may already dial.
  if (pod.ips.length === 0) return 'pod_unconfirmed'
  const isOfPod = pod.ips.some((ip) => normalizeAddress(ip) === address)
  return isOfPod ? undefined : 'source_address_mismatch'
}
