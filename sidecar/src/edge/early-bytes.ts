/** Holds what a worker sends during its admission, in one buffer. */

import type { Duplex } from 'node:stream'

/** The first allocation, in bytes; it doubles from there. */
const BYTES_MIN = 1024
const EMPTY = Buffer.alloc(0)

/**
 * A paused socket keeps each chunk as a separate object. A peer that sends single bytes would make
 * it hold a hundred times what it sent, so the chunks are copied into one buffer as they come. Once
 * the socket's high-water mark (64 KiB) is reached, everything is put back into the socket. There
 * it counts as unread, so Node stops reading and TCP holds back the rest. A flowing socket also
 * reports its end at once; a full one reports it after the admission.
 */
export class EarlyBytes {
  readonly #socket: Duplex
  readonly #bytesMax: number
  #bytes: Buffer = EMPTY
  #size = 0
  #isListening = false

  constructor(socket: Duplex) {
    this.#socket = socket
    this.#bytesMax = socket.readableHighWaterMark
  }

  /** The bytes read and not put back into the socket. Valid until the next chunk. */
  get held(): Buffer {
    return this.#bytes.subarray(0, this.#size)
  }

  /**
   * Starts with `head`, bytes read before. It is kept, so it must not be a view of a larger buffer.
   */
  start(head: Buffer): void {
    this.#bytes = head
    this.#size = head.length
    if (head.length >= this.#bytesMax) return this.#putBack(EMPTY)
    this.#isListening = true
    this.#socket.on('data', this.#onData)
    this.#socket.resume()
  }

  /** Pauses the socket and returns the bytes that precede those still in it. */
  stop(): Buffer {
    const { held } = this
    this.#bytes = EMPTY
    this.#size = 0
    this.#stopListening()
    return held
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#size + chunk.length >= this.#bytesMax) this.#putBack(chunk)
    else this.#append(chunk)
  }

  #append(chunk: Buffer): void {
    const size = this.#size + chunk.length
    if (size > this.#bytes.length) {
      const doubled = Math.max(BYTES_MIN, size, 2 * this.#bytes.length)
      const larger = Buffer.allocUnsafeSlow(Math.min(doubled, this.#bytesMax))
      this.#bytes.copy(larger, 0, 0, this.#size)
      this.#bytes = larger
    }
    chunk.copy(this.#bytes, this.#size)
    this.#size = size
  }

  /** In the turn of the `data` event, so that Node does not read once more. */
  #putBack(chunk: Buffer): void {
    const held = this.stop()
    if (chunk.length > 0) this.#socket.unshift(chunk)
    if (held.length > 0) this.#socket.unshift(held)
  }

  #stopListening(): void {
    if (this.#isListening) this.#socket.off('data', this.#onData)
    this.#isListening = false
    this.#socket.pause()
  }
}
