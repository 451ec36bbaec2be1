/** The sessions of devices: one live session each, and the next only after the last is gone. */

import type { Socket } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import type { Code } from '../../denial.ts'
import type { PodName } from './device-key.ts'
import { filterSurface, isSurfaceAllowed, type Surface } from './gateway-connect.ts'

export type SessionOptions = {
  readonly pod: PodName
  readonly podUid: string
  /** The commands that the current policy allows; never a copy, since it may be reloaded. */
  readonly allowedCommands: () => readonly string[]
  /** Ends the admission or the stream this session belongs to. */
  readonly revoke: (code: Code) => void
}

/** A device's session, from the moment its pod was bound to the end of its gateway socket. */
export class Session {
  readonly pod: PodName
  readonly podUid: string
  readonly allowedCommands: () => readonly string[]
  /** Settles when every earlier session of the device is gone. */
  readonly predecessorsClosed: Promise<unknown>
  /** Settles when this session and every earlier one is gone. */
  readonly closed: Promise<unknown>
  readonly revoke: (code: Code) => void
  readonly #end: () => void
  /** What the gateway was told that the node offers; `undefined` before that. */
  #offered: Surface | undefined
  #isAccepted = false
  /** What the gateway was asked to approve since then. */
  #approved: Surface = { commands: [] }

  constructor(options: SessionOptions, predecessorsClosed: Promise<unknown>) {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    this.pod = options.pod
    this.podUid = options.podUid
    this.allowedCommands = options.allowedCommands
    this.revoke = options.revoke
    this.predecessorsClosed = predecessorsClosed
    this.#end = () => resolve(undefined)
    this.closed = Promise.all([predecessorsClosed, promise])
  }

  /** Whether the gateway has accepted it. */
  get isAccepted(): boolean {
    return this.#isAccepted
  }

  /** The gateway is about to be told that the node offers exactly this. */
  offer(surface: Surface): void {
    this.#offered = surface
  }

  /** The gateway is about to be asked to approve this. */
  approve({ commands = [], caps = [], permissions = {} }: Surface): void {
    const before = this.#approved
    this.#approved = {
      commands: [...new Set([...(before.commands ?? []), ...commands])],
      caps: [...new Set([...(before.caps ?? []), ...caps])],
      permissions: { ...before.permissions, ...permissions },
    }
  }

  /** Whether the current policy allows all of a surface. */
  allows(surface: Surface): boolean {
    return isSurfaceAllowed(surface, this.allowedCommands())
  }

  /**
   * Whether the gateway was told exactly what the current policy allows of the worker's surface.
   */
  isUpToDate(surface: Surface): boolean {
    return isDeepStrictEqual(this.#offered, filterSurface(surface, this.allowedCommands()))
  }

  /** Why it must end, if it offers more than the current policy allows. */
  findEnd(): Code | undefined {
    // If the policy refuses the whole worker, its own check refuses it, with a better reason.
    const isRefused = this.allowedCommands().length === 0
    if (this.#offered === undefined || isRefused) return undefined
    const isAllowed = this.allows(this.#offered) && this.allows(this.#approved)
    return isAllowed ? undefined : 'policy_changed'
  }

  /** The gateway accepted the session: from now on it lasts as long as this socket. */
  bindSocket(socket: Socket): void {
    this.#isAccepted = true
    if (socket.closed) this.#end()
    else socket.once('close', this.#end)
  }

  /** The gateway did not accept it, and its socket is gone. */
  abandon(): void {
    this.#end()
  }
}

/** At most one entry for each admission and stream. */
export class Sessions {
  readonly #newest = new Map<string, Session>()

  /**
   * Opens the device's next session, which displaces the previous one. The gateway leaves a node
   * unlisted when an older connection ends after a newer one began, so the caller must wait for
   * `predecessorsClosed` before it dials.
   */
  open(deviceId: string, options: SessionOptions): Session {
    const before = this.#newest.get(deviceId)
    const session = new Session(options, before?.closed ?? Promise.resolve())
    this.#newest.set(deviceId, session)
    void this.#forget(deviceId, session)
    before?.revoke('displaced')
    return session
  }

  async #forget(deviceId: string, session: Session): Promise<void> {
    await session.closed
    if (this.#newest.get(deviceId) === session) this.#newest.delete(deviceId)
  }

  /** The newest session of a device, unless it is over. */
  find(deviceId: string): Session | undefined {
    return this.#newest.get(deviceId)
  }
}
