/** Command surfaces: approves what a known node newly offers, as far as the policy allows it. */

import * as z from 'zod'
import type { Clock } from '../../lib/clock.ts'
import { Fault } from '../../fault.ts'
import { CallRefused, type OperatorChannel } from './operator-channel.ts'
import { UNKNOWN_REQUEST } from './pairing-requests.ts'
import type { Session, Sessions } from './sessions.ts'

export type SurfacesOptions = {
  readonly channel: Pick<OperatorChannel, 'call'>
  readonly sessions: Pick<Sessions, 'find'>
  readonly clock: Clock
  /** A device wants more than its policy allows; the operator has to decide. */
  readonly onWithheld: (deviceId: string) => void
  /** The gateway has dropped a session over the approval of its surface: its node has to come back. */
  readonly onDropped: (deviceId: string) => void
  readonly onFault: (error: unknown) => void
}

const PENDING = z.object({
  requestId: z.string(),
  nodeId: z.string(),
  commands: z.array(z.string()).optional(),
  caps: z.array(z.string()).optional(),
  permissions: z.record(z.string(), z.boolean()).optional(),
  computerUse: z.unknown().optional(),
})

type Pending = z.output<typeof PENDING>

const LIST = z.object({ pending: z.array(z.unknown()) })
const DROPPED = z.object({ connected: z.literal(false) })

/** The shortest time between two lists, in milliseconds: each names every node. */
const INTERVAL_MS = 1000
/** The pause after a failed call, in milliseconds. */
const RETRY_MS = 3000

/**
 * With a bootstrap token the gateway approves a new device's first surface itself; one that widened
 * later waits for us, and so does the first one of a device that was approved.
 */
export class Surfaces {
  readonly #options: SurfacesOptions
  #isDue = false
  #isResting = false
  #isStopped = false
  #cancel = () => {}

  constructor(options: SurfacesOptions) {
    this.#options = options
  }

  /** Some device may have a surface that waits for approval. */
  check(): void {
    this.#isDue = true
    if (!this.#isResting) void this.#run()
  }

  stop(): void {
    this.#isStopped = true
    this.#isResting = true
    this.#cancel()
  }

  async #run(): Promise<void> {
    this.#isDue = false
    this.#isResting = true
    let pauseMs = INTERVAL_MS
    try {
      const list = LIST.safeParse(await this.#options.channel.call('node.pair.list'))
      if (!list.success) throw unreadable()
      await this.#decideAll(list.data.pending)
    } catch (error) {
      if (!(error instanceof Fault || error instanceof CallRefused)) throw error
      // Nobody else would ask again: a surface that changed meanwhile would wait forever.
      this.#isDue = true
      pauseMs = RETRY_MS
      this.#options.onFault(error)
    }
    if (this.#isStopped) return
    this.#cancel = this.#options.clock.after(pauseMs, () => {
      this.#isResting = false
      if (this.#isDue) this.check()
    })
  }

  /**
   * One that the gateway refuses, or that cannot be read, must not keep the others waiting. Throws the
   * first such error then.
   */
  async #decideAll(all: readonly unknown[]): Promise<void> {
    let first: Fault | CallRefused | undefined
    for (const each of all) {
      const pending = PENDING.safeParse(each)
      try {
        if (pending.success) await this.#decide(pending.data)
        else first ??= unreadable()
      } catch (error) {
        if (!(error instanceof CallRefused)) throw error
        first ??= error
      }
    }
    if (first !== undefined) throw first
  }

  /**
   * We decide only for a device with a live session: its key was proven a moment ago. A gateway does
   * not apply what is approved before it has accepted the session; that is asked about again then.
   */
  async #decide({ requestId, nodeId, ...surface }: Pending): Promise<void> {
    const { channel, onWithheld, sessions } = this.#options
    const session = sessions.find(nodeId)
    if (session?.isAccepted !== true) return
    if (!session.allows(surface)) return onWithheld(nodeId)
    // Before the answer: a policy that changes meanwhile has to see it.
    session.approve(surface)
    await channel.call('node.pair.approve', { requestId }).catch(forgiveDecided)
    await this.#endDropped(nodeId, session)
  }

  /**
   * A gateway since 2026.8 that lists its nodes while it writes an approval takes the session for an
   * old one: it never uses it again, and leaves its socket open. The next session has the surface.
   */
  async #endDropped(nodeId: string, session: Session): Promise<void> {
    const { channel, onDropped, sessions } = this.#options
    const node = await channel.call('node.describe', { nodeId }).catch(ignoreRefusal)
    if (!DROPPED.safeParse(node).success || sessions.find(nodeId) !== session) return
    onDropped(nodeId)
    session.revoke('gateway_gone')
  }
}

const unreadable = () => new Fault('operator_unavailable', "the gateway's node list cannot be read")

/** The node may be gone meanwhile. */
function ignoreRefusal(error: unknown): void {
  if (!(error instanceof CallRefused)) throw error
}

/** The enrolment of the same device, or the operator, was first. */
function forgiveDecided(error: unknown): void {
  if (!(error instanceof CallRefused && error.message.includes(UNKNOWN_REQUEST))) throw error
}
