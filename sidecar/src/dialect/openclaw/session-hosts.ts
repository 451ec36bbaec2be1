/** Session hosts: which workers offer to host agent sessions, and how many slots they have. */

import { LRUCache } from 'lru-cache'
import * as z from 'zod'
import { Fault } from '../../fault.ts'
import { Backoff } from '../../lib/backoff.ts'
import { boundedLru } from '../../lib/bounded-lru.ts'
import type { Clock } from '../../lib/clock.ts'
import type { SessionHosting } from '../../observe/metric-sources.ts'
import type { PodName } from './device-key.ts'
import { CallRefused, type OperatorChannel } from './operator-channel.ts'
import type { Session, Sessions } from './sessions.ts'

export type SessionHostsOptions = {
  readonly channel: Pick<OperatorChannel, 'call'>
  readonly sessions: Pick<Sessions, 'find'>
  /** Whether the current policy lets this pod host sessions. */
  readonly isHostingAllowed: (pod: PodName) => boolean
  /** Pods that offer to host sessions against the policy. Each is named once, until that changes. */
  readonly onForbidden: (pods: readonly PodName[]) => void
  readonly onFault: (error: unknown) => void
  readonly clock: Clock
  /** From 0 to 1. */
  readonly random: () => number
}

/** The shortest time between two lists, in milliseconds: each names every node. */
const INTERVAL_MS = 15_000
/** How long to wait for an event before the next list, in milliseconds. */
const POLL_MS = 60_000
/**
 * The pause after a failed list, in milliseconds: at most, and the first time. An answer too long
 * for the operator channel ends it, so such a gateway must be asked less and less.
 */
const RETRY_MS_MAX = 600_000
const RETRY_MS_MIN = 30_000
const REPORTED_MAX = 20_000
/** More slots on one node are taken for an error. */
const SLOTS_MAX = 65_536
/** The gateway's error message for a method it does not have. */
const UNKNOWN_METHOD = 'unknown method'
const NODE_ID_PREFIX = 'node:'

const LIST = z.object({ environments: z.array(z.unknown()) })
/** Gateways before 2026.8.1 list their nodes too, but not who hosts sessions. */
const TELLING = z.object({ sessionHost: z.boolean() })
const NODE = z.object({ type: z.literal('node'), id: z.string().startsWith(NODE_ID_PREFIX) })
const COUNT = z.int().min(0).max(SLOTS_MAX)
const HOST = z.object({
  sessionHost: z.literal(true),
  /** Only a connected node has them. */
  workerSlots: z
    .object({ total: COUNT, available: COUNT })
    .refine(({ total, available }) => available <= total)
    .optional()
    .catch(undefined),
})

type Slots = NonNullable<z.output<typeof HOST>['workerSlots']>
type Host = { readonly session: Session; readonly slots: Slots }

const NO_SLOTS: Slots = { total: 0, available: 0 }

/**
 * Lists the gateway's nodes when it says that one changed, and once in a while. A gateway that does
 * not tell who hosts sessions is asked once for each connection.
 */
export class SessionHosts {
  readonly #options: SessionHostsOptions
  readonly #retry: Backoff
  /** Offered slots by device, of those with a session; `undefined` while the gateway does not tell. */
  #slotsOf: ReadonlyMap<string, Slots> | undefined
  /** The uids of the pods that were reported. */
  readonly #reported = new LRUCache<string, true>(boundedLru(REPORTED_MAX))
  #state: 'disconnected' | 'connected' | 'not telling' = 'disconnected'
  #isStopped = false
  #isDue = false
  #isResting = false
  #cancel = () => {}

  constructor(options: SessionHostsOptions) {
    this.#options = options
    this.#retry = new Backoff({
      minMs: RETRY_MS_MIN,
      maxMs: RETRY_MS_MAX,
      random: options.random,
    })
  }

  /** The operator channel is up. */
  connected(): void {
    this.#state = 'connected'
    this.check()
  }

  /** The operator channel is down: nothing is known any more. */
  disconnected(): void {
    this.#state = 'disconnected'
    this.#slotsOf = undefined
  }

  /** A node may offer something else now. */
  check(): void {
    this.#isDue = true
    if (!this.#isResting) void this.#run()
  }

  /** The slots and offers of the nodes that are connected now, judged by the current policy. */
  summarize(): SessionHosting | undefined {
    if (this.#slotsOf === undefined) return undefined
    const slots = new Map<string, { free: number; used: number }>()
    const forbidden = new Map<string, number>()
    for (const { session, slots: offered } of this.#listHosts()) {
      const { namespace } = session.pod
      const sum = slots.get(namespace) ?? { free: 0, used: 0 }
      sum.free += offered.available
      sum.used += offered.total - offered.available
      slots.set(namespace, sum)
      if (this.#isForbidden(session)) forbidden.set(namespace, (forbidden.get(namespace) ?? 0) + 1)
    }
    return { slots, forbidden }
  }

  /** Another policy may forbid what was allowed, or allow what was forbidden. */
  policyChanged(): void {
    this.#report()
  }

  stop(): void {
    this.#isStopped = true
    this.#cancel()
  }

  async #run(): Promise<void> {
    this.#cancel()
    if (this.#isStopped || this.#state !== 'connected') return
    this.#isDue = false
    this.#isResting = true
    const pauseMs = await this.#list()
    if (this.#isStopped) return
    this.#cancel = this.#options.clock.after(pauseMs, () => this.#rested())
  }

  #rested(): void {
    this.#isResting = false
    if (this.#isDue) return void this.#run()
    this.#cancel = this.#options.clock.after(POLL_MS - INTERVAL_MS, () => this.check())
  }

  /** Resolves with how long to wait before the next list, in milliseconds. */
  async #list(): Promise<number> {
    try {
      const list = LIST.safeParse(await this.#options.channel.call('environments.list'))
      if (!list.success) {
        throw new Fault('operator_unavailable', "the gateway's environment list cannot be read")
      }
      this.#take(list.data.environments)
      this.#retry.reset()
      return INTERVAL_MS
    } catch (error) {
      if (!(error instanceof Fault || error instanceof CallRefused)) throw error
      return this.#failed(error)
    }
  }

  #take(environments: readonly unknown[]): void {
    // What an earlier connection answered may no longer be true.
    if (this.#state !== 'connected') return
    if (!environments.some((environment) => TELLING.safeParse(environment).success)) {
      return this.#stopAsking()
    }
    this.#slotsOf = this.#readHosts(environments)
    this.#report()
  }

  /** Until the next connection. */
  #stopAsking(): void {
    this.#slotsOf = undefined
    if (this.#state === 'connected') this.#state = 'not telling'
  }

  #failed(error: Fault | CallRefused): number {
    if (error.message.includes(UNKNOWN_METHOD)) {
      this.#stopAsking()
      return INTERVAL_MS
    }
    this.#slotsOf = undefined
    this.#isDue = true
    if (!this.#isStopped) this.#options.onFault(error)
    return this.#retry.next()
  }

  /** Of what may be a long list, only the nodes with a session are read closely. */
  #readHosts(environments: readonly unknown[]): ReadonlyMap<string, Slots> {
    const slotsOf = new Map<string, Slots>()
    for (const environment of environments) {
      const node = NODE.safeParse(environment)
      if (!node.success) continue
      const deviceId = node.data.id.slice(NODE_ID_PREFIX.length)
      const session = this.#options.sessions.find(deviceId)
      if (session === undefined) continue
      const host = HOST.safeParse(environment)
      if (host.success) slotsOf.set(deviceId, host.data.workerSlots ?? NO_SLOTS)
      // One that no longer offers it is reported again when it does.
      else this.#reported.delete(session.podUid)
    }
    return slotsOf
  }

  *#listHosts(): Iterable<Host> {
    for (const [deviceId, slots] of this.#slotsOf ?? []) {
      const session = this.#options.sessions.find(deviceId)
      if (session !== undefined) yield { session, slots }
    }
  }

  /** Names the forbidden hosts that were not named yet. */
  #report(): void {
    const found: PodName[] = []
    for (const { session } of this.#listHosts()) {
      const { pod, podUid } = session
      if (!this.#isForbidden(session)) this.#reported.delete(podUid)
      else if (!this.#reported.has(podUid)) {
        this.#reported.set(podUid, true)
        found.push(pod)
      }
    }
    if (found.length > 0) this.#options.onForbidden(found)
  }

  #isForbidden({ pod }: Session): boolean {
    return !this.#options.isHostingAllowed(pod)
  }
}
