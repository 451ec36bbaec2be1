/** The sessions of devices: one live session each, and the next one only after the last is gone. */

import type { Socket } from 'node:net'
import type { Code } from '../../denial.ts'

export type SessionOptions = {
  readonly podUid: string
  readonly allowedCommands: readonly string[]
  /** Ends the admission or the stream this session belongs to. */
  readonly revoke: (code: Code) => void
}

/** A device's session, from the moment its pod was bound to the end of its gateway socket. */
export class Session {
  readonly podUid: string
  readonly allowedCommands: readonly string[]
  /** Settles when every earlier session of the device is gone. */
  readonly cleared: Promise<unknown>
  /** Settles when this one and every earlier one is gone. */
  readonly over: Promise<unknown>
  readonly revoke: (code: Code) => void
  readonly #end: () => void

  constructor(options: SessionOptions, cleared: Promise<unknown>) {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    this.podUid = options.podUid
    this.allowedCommands = options.allowedCommands
    this.revoke = options.revoke
    this.cleared = cleared
    this.#end = () => resolve(undefined)
    this.over = Promise.all([cleared, promise])
  }

  /** The gateway took it: from now on it lasts as long as this socket. */
  hold(socket: Socket): void {
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
   * wait for `cleared` before it dials.
   */
  open(deviceId: string, options: SessionOptions): Session {
    const before = this.#newest.get(deviceId)
    const session = new Session(options, before?.over ?? Promise.resolve())
    this.#newest.set(deviceId, session)
    void this.#forget(deviceId, session)
    before?.revoke('displaced')
    return session
  }

  async #forget(deviceId: string, session: Session): Promise<void> {
    await session.over
    if (this.#newest.get(deviceId) === session) this.#newest.delete(deviceId)
  }

  /** The newest session of a device, unless it is over. */
  find(deviceId: string): Session | undefined {
    return this.#newest.get(deviceId)
  }
}
