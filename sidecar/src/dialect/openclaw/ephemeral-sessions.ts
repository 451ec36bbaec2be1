/** Ephemeral sessions: a device record goes with its pod, and no other record is touched. */

import { setImmediate as turn } from 'node:timers/promises'
import { accountNameOf, type Account } from '../../identity.ts'
import type { Clock } from '../../lib/clock.ts'
import type { PodListener } from '../../kube/pod-watch.ts'
import type { WatchedPod } from '../../kube/pod.ts'
import type { Identity } from '../../identity.ts'
import type { DeviceKeys } from './device-key.ts'
import type { DeviceRecord, Devices } from './devices.ts'
import type { KnownPods } from './known-pods.ts'
import type { PairingRequests } from './pairing-requests.ts'
import type { Sessions } from './sessions.ts'

export type EphemeralSessionsOptions = {
  readonly devices: Pick<Devices, 'list' | 'remove'>
  readonly requests: Pick<PairingRequests, 'reject'>
  readonly sessions: Pick<Sessions, 'find'>
  readonly deviceKeys: DeviceKeys
  readonly pods: Pick<KnownPods, 'livePods' | 'accounts'>
  readonly isEnabled: () => boolean
  readonly clock: Clock
  readonly onRemoved: (deviceId: string, podName: string) => void
  readonly onFault: (error: unknown) => void
}

const REMOVALS_MAX = 20_000
const UNDER_WAY_MAX = 4
const RETRY_MS = 2000
/** How often to look for records that a crash or a broken channel left behind, in milliseconds. */
const RECONCILE_MS = 300_000
/** How soon to look when pods were not known, or just became known, in milliseconds. */
const SOON_MS = 1000
/** How often to see whether an account's pods became known that the last look left out, in milliseconds. */
const LEFT_OUT_MS = 10_000
/** Deriving a device costs as much as a signature: other work gets its turn in between. */
const DERIVED_AT_ONCE_MAX = 32

type Removal = {
  readonly podName: string
  readonly podUid: string | undefined
  /** Whether a request for pairing may wait at the gateway. */
  readonly hasRequest?: boolean
  /** Set while a request to the gateway is in flight. */
  running: Promise<void> | undefined
}

export class EphemeralSessions implements PodListener {
  readonly #options: EphemeralSessionsOptions
  readonly #removals = new Map<string, Removal>()
  #underWay = 0
  #isStopped = false
  #hasReconciled = false
  #isDue = false
  #reconciledAt = -Infinity
  /** The accounts whose records the last look judged; none if it failed. */
  #judged: ReadonlySet<string> = new Set()
  #reconciling: Promise<void> | undefined
  #cancelRetry: (() => void) | undefined
  #cancelReconcile = () => {}

  constructor(options: EphemeralSessionsOptions) {
    this.#options = options
  }

  /** Records that wait to be removed. */
  get size(): number {
    return this.#removals.size
  }

  /** Pods may have gone unseen, and now it shows. */
  scopeSynced(): void {
    this.#isDue = true
    if (this.#reconciling === undefined) this.#schedule()
  }

  /** The pod is gone for good: its record is removed after its last session ends. */
  podGone({ namespace, serviceAccount, name, uid: podUid }: WatchedPod): void {
    if (!this.#options.isEnabled()) return
    const pod = { namespace, serviceAccount, podName: name }
    const { id } = this.#options.deviceKeys(pod)
    const session = this.#options.sessions.find(id)
    // A device enrolled in a session's last moment would survive a removal that comes too early.
    const over = session?.podUid === podUid ? session.closed : Promise.resolve()
    void over.then(() => this.#queue(id, { podName: pod.podName, podUid }))
  }

  /**
   * An enrolment has failed: whatever the gateway holds of it is removed, with or without ephemeral
   * sessions.
   */
  discard(deviceId: string, { podName, podUid }: Pick<Identity, 'podName' | 'podUid'>): void {
    this.#queue(deviceId, { podName, podUid, hasRequest: true })
  }

  /**
   * A new session of the device begins. A waiting removal is canceled, a running one is awaited, so
   * that nothing removes what the session is about to use.
   */
  async keep(deviceId: string): Promise<void> {
    const removal = this.#removals.get(deviceId)
    if (removal === undefined) return
    if (removal.running === undefined) this.#removals.delete(deviceId)
    await removal.running
    // One that failed would be tried again, on the session that begins now.
    if (this.#removals.get(deviceId) === removal) this.#removals.delete(deviceId)
  }

  /**
   * Finds records of pods that disappeared unseen. A record is ours if the device recomputed from
   * its name has its id: nobody without the seed can make such a record.
   */
  reconcile(): Promise<void> {
    this.#reconciling ??= this.#reconcile()
      .catch((error: unknown) => this.#options.onFault(error))
      .finally(() => {
        this.#reconciling = undefined
        this.#schedule()
      })
    return this.#reconciling
  }

  #schedule(): void {
    // Before the first time there is nobody to ask: the operator channel is not up.
    if (this.#isStopped || !this.#hasReconciled) return
    this.#cancelReconcile()
    const { clock, pods } = this.#options
    const isSoon = this.#isDue || pods.accounts().length === 0
    this.#cancelReconcile = clock.after(isSoon ? SOON_MS : LEFT_OUT_MS, () => {
      if (this.#isToReconcile()) void this.reconcile()
      else this.#schedule()
    })
  }

  /** A watch that is only reopened hides its accounts for a moment, and nobody tells when it is over. */
  #isToReconcile(): boolean {
    const { clock, pods } = this.#options
    return (
      this.#isDue ||
      clock.monotonic() - this.#reconciledAt >= RECONCILE_MS ||
      pods.accounts().some((account) => !this.#judged.has(accountNameOf(account)))
    )
  }

  stop(): void {
    this.#isStopped = true
    this.#cancelRetry?.()
    this.#cancelReconcile()
    this.#removals.clear()
  }

  async #reconcile(): Promise<void> {
    const { clock, devices, deviceKeys, isEnabled, pods } = this.#options
    this.#hasReconciled = true
    this.#isDue = false
    this.#reconciledAt = clock.monotonic()
    this.#judged = new Set()
    if (!isEnabled() || pods.accounts().length === 0) return
    const records = await devices.list()
    // Read after the list, so that they include a pod that enrolled meanwhile.
    const [accounts, live] = [pods.accounts(), pods.livePods()]
    const kept = new Set<string>()
    for (const [index, pod] of live.entries()) {
      kept.add(deviceKeys(pod).id)
      if (index % DERIVED_AT_ONCE_MAX === 0) await turn()
    }
    for (const record of records) {
      if (!kept.has(record.deviceId)) await this.#judge(record, accounts)
    }
    this.#judged = new Set(accounts.map(accountNameOf))
  }

  async #judge(
    { deviceId, displayName: podName }: DeviceRecord,
    accounts: readonly Account[],
  ): Promise<void> {
    const { deviceKeys } = this.#options
    if (podName === undefined) return
    for (const [index, account] of accounts.entries()) {
      if (index % DERIVED_AT_ONCE_MAX === 0) await turn()
      if (deviceKeys({ ...account, podName }).id !== deviceId) continue
      return this.#queue(deviceId, { podName, podUid: undefined })
    }
  }

  #queue(deviceId: string, removal: Omit<Removal, 'running'>): void {
    // Beyond the bound the next reconciliation finds it.
    if (this.#isStopped || this.#removals.has(deviceId)) return
    if (this.#removals.size >= REMOVALS_MAX) return
    this.#removals.set(deviceId, { ...removal, running: undefined })
    this.#advance()
  }

  #advance(): void {
    if (this.#cancelRetry !== undefined) return
    for (const [deviceId, removal] of this.#removals) {
      if (this.#underWay >= UNDER_WAY_MAX) return
      if (removal.running === undefined) this.#start(deviceId, removal)
    }
  }

  #start(deviceId: string, removal: Removal): void {
    const session = this.#options.sessions.find(deviceId)
    // A new pod of the same name is using the device.
    if (session !== undefined && session.podUid !== removal.podUid) {
      this.#removals.delete(deviceId)
      return
    }
    this.#underWay += 1
    removal.running = this.#remove(deviceId, removal).finally(() => {
      this.#underWay -= 1
      this.#advance()
    })
  }

  async #remove(deviceId: string, removal: Removal): Promise<void> {
    const { clock, devices, onFault, onRemoved, requests } = this.#options
    try {
      if (removal.hasRequest === true) await requests.reject(deviceId)
      await devices.remove(deviceId)
      if (this.#removals.get(deviceId) === removal) this.#removals.delete(deviceId)
      // There may have been nothing but a request, of a worker that was never let in.
      if (removal.hasRequest !== true) onRemoved(deviceId, removal.podName)
    } catch (error) {
      removal.running = undefined
      if (this.#isStopped) return
      onFault(error)
      this.#cancelRetry ??= clock.after(RETRY_MS, () => {
        this.#cancelRetry = undefined
        this.#advance()
      })
    }
  }
}
