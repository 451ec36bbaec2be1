/** Writes the answers to a peer's control frames, with a bound on how many wait. */

import type { Writable } from 'node:stream'

/**
 * A peer that pings but does not read would make the socket's queue grow. While one answer is being
 * written, only the newest of the others is kept: a pong may answer just the most recent ping (RFC
 * 6455 §5.5.3). A peer that reads gets every answer.
 */
export class BoundedReplies {
  readonly #socket: Writable
  #isWriting = false
  #owed: Buffer | undefined

  constructor(socket: Writable) {
    this.#socket = socket
  }

  /** Writes `reply`, or keeps it instead of the waiting one. */
  write(reply: Buffer): void {
    if (reply.length === 0) return
    if (this.#isWriting) {
      this.#owed = reply
      return
    }
    this.#isWriting = true
    this.#socket.write(reply, this.#onWritten)
  }

  /** Writes the waiting reply and then the last one. The socket belongs to others afterwards. */
  finish(reply: Buffer): void {
    const owed = this.#owed
    this.#owed = undefined
    if (owed !== undefined) this.#socket.write(owed)
    if (reply.length > 0) this.#socket.write(reply)
  }

  readonly #onWritten = (): void => {
    this.#isWriting = false
    const owed = this.#owed
    this.#owed = undefined
    if (owed !== undefined && this.#socket.writable) this.write(owed)
  }
}
