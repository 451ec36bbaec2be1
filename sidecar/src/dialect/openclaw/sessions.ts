/** The sessions of devices: one live session each, and the next one only after the last is gone. */

import type { Socket } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import type { Code } from '../../denial.ts'
import { filterSurface, isSurfaceAllowed, type Surface } from './gateway-connect.ts'

export type SessionOptions = {
  readonly podUid: string
  /** The commands that the policy in force allows; never a copy, since it may be reloaded. */
  readonly allowedCommands: () => readonly string[]
  /** Ends the admission or the stream this session belongs to. */
  readonly revoke: (code: Code) => void
}

/** A device's session, from the moment its pod was bound to the end of its gateway socket. */
export class Session {
  readonly podUid: string
  readonly allowedCommands: () => readonly string[]
  /** Settles when every earlier session of the device is gone. */
  readonly predecessorsClosed: Promise<unknown>
  /** Settles when this one and every earlier one is gone. */
  readonly closed: Promise<unknown>
  readonly revoke: (code: Code) => void
  readonly #end: () => void
  /** What the gateway is told that the node offers; `undefined` before it is. */
  #offered: Surface | undefined
  /** What the gateway was asked to approve since then. */
  #approved: Surface = { commands: [] }

  constructor(options: SessionOptions, predecessorsClosed: Promise<unknown>) {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    this.podUid = options.podUid
    this.allowedCommands = options.allowedCommands
    this.revoke = options.revoke
    this.predecessorsClosed = predecessorsClosed
    this.#end = () => resolve(undefined)
    this.closed = Promise.all([predecessorsClosed, promise])
  }

  /** The gateway is told next that the node offers this, and no more. */
  offer(surface: Surface): void {
    this.#offered = surface
  }

  /** The gateway is asked next to approve this. */
  approve({ commands = [], caps = [], permissions = {} }: Surface): void {
    const before = this.#approved
    this.#approved = {
      commands: [...new Set([...(before.commands ?? []), ...commands])],
      caps: [...new Set([...(before.caps ?? []), ...caps])],
      permissions: { ...before.permissions, ...permissions },
    }
  }

  /** Whether the policy in force allows all of a surface. */
  allows(surface: Surface): boolean {
    return isSurfaceAllowed(surface, this.allowedCommands())
  }

  /** Whether the gateway was told what the policy in force leaves of the worker's own surface. */
  isUpToDate(surface: Surface): boolean {
    return isDeepStrictEqual(this.#offered, filterSurface(surface, this.allowedCommands()))
  }

  /** Ends it if it offers what the policy in force no longer allows. */
  review(): void {
    // Whom the policy refuses as a whole is refused, with a better reason, by those who asked it.
    const isRefused = this.allowedCommands().length === 0
    if (this.#offered === undefined || isRefused) return
    const isAllowed = this.allows(this.#offered) && this.allows(this.#approved)
    if (!isAllowed) this.revoke('policy_changed')
  }

  /** The gateway took it: from now on it lasts as long as this socket. */
  bindSocket(socket: Socket): void {
    if (socket.closed) this.#end()
    else socket.once('close', this.#end)
  }

  /** The gateway did not take it, and no socket of it is left. */
  abandon(): void {
    this.#end()
  }
}

/** At most one entry for each admission and stream there is. */
export class Sessions {
  readonly #newest = new Map<string, Session>()

  /**
   * Opens the device's next session, which displaces the one before it. The gateway leaves a node
   * unlisted when an older connection of it ends after a newer one began, so the caller has to
   * wait for `predecessorsClosed` before it dials.
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

  /** Every session has to be allowed what it offers. */
  policyChanged(): void {
    for (const session of this.#newest.values()) session.review()
  }

  /** The newest session of a device, unless it is over. */
  find(deviceId: string): Session | undefined {
    return this.#newest.get(deviceId)
  }
}
