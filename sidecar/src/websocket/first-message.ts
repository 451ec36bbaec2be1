/** Reads one text message from a peer before its bytes are relayed, and answers control frames. */

import { isUtf8 } from 'node:buffer'

import { findCloseViolation } from './close-payload.ts'
import {
  HEADER_BYTES_MAX,
  OPCODE,
  UNLAWFUL,
  headerBytes,
  isLawful,
  payloadBytes,
} from './frame-header.ts'
import { CONTROL_BYTES_MAX, applyMask, closeReplyFrame, pongFrame } from './frames.ts'

export type FirstMessageOptions = {
  /** Whether the peer's frames must be masked: true for a worker, false for a gateway. */
  readonly masked: boolean
  /** The most bytes read until the message is complete, headers and control frames included. */
  readonly bytesMax: number
  /**
   * The most frames read until the message is complete, control frames included. Default: no limit
   * but `bytesMax`.
   */
  readonly framesMax?: number
}

/** `reply` is what we owe the peer, pongs and the answer to its close frame; often empty. */
export type FirstMessage = { readonly reply: Buffer } & (
  | { readonly kind: 'more' }
  | { readonly kind: 'message'; readonly text: string; readonly rest: Buffer }
  | { readonly kind: 'closed' }
  | {
      readonly kind: 'violation'
      readonly code: 'framing_violation' | 'invalid_utf8' | 'frame_binary' | 'frame_too_large'
    }
)

type Ending = Exclude<
  FirstMessage extends infer T ? (T extends unknown ? Omit<T, 'reply'> : never) : never,
  { kind: 'more' }
>
type ViolationCode = Extract<FirstMessage, { kind: 'violation' }>['code']
/** The first allocation for a message, in bytes; it doubles from there. */
const MESSAGE_BYTES_MIN = 1024
const EMPTY = Buffer.alloc(0)

/**
 * Feed it chunks until it returns something other than `more`; then it is used up, and `rest` is
 * what the peer sent after the message. The peer is not admitted yet, so it must not make us hold
 * more than it sends: payloads are unmasked from the chunk straight into one buffer, no chunk is
 * kept, and no memory is kept per frame. Work is linear in the bytes, memory at most twice the
 * bytes.
 */
export class FirstMessageReader {
  readonly #options: FirstMessageOptions
  /** The header of the current frame; its payload is being read once `#isInPayload`. */
  readonly #header = Buffer.alloc(HEADER_BYTES_MAX)
  #headerBytes = 0
  #isInPayload = false
  #payloadBytes = 0
  #payloadRead = 0
  /** Bytes of this and all earlier frames, headers included. */
  #bytes = 0
  /** Frames whose header is complete. */
  #frames = 0
  #isInMessage = false
  #message = EMPTY
  #messageBytes = 0
  readonly #control = Buffer.alloc(CONTROL_BYTES_MAX)
  #replies: Buffer[] = []

  constructor(options: FirstMessageOptions) {
    this.#options = options
  }

  push(chunk: Buffer): FirstMessage {
    const ending = this.#read(chunk)
    const reply = this.#replies.length === 0 ? EMPTY : Buffer.concat(this.#replies)
    this.#replies = []
    return ending === undefined ? { kind: 'more', reply } : { ...ending, reply }
  }

  #read(chunk: Buffer): Ending | undefined {
    let at = 0
    for (;;) {
      if (!this.#isInPayload) {
        at = this.#takeHeader(chunk, at)
        const objection = this.#findObjection()
        if (objection !== undefined) return { kind: 'violation', code: objection }
        if (!this.#isHeaderWhole) return undefined
        this.#beginPayload()
      }
      at = this.#takePayload(chunk, at)
      if (this.#payloadRead < this.#payloadBytes) return undefined
      const ending = this.#endFrame(chunk, at)
      if (ending !== undefined) return ending
    }
  }

  get #opcode(): number {
    return this.#header.readUInt8(0) & 0x0f
  }

  get #isHeaderWhole(): boolean {
    return this.#headerBytes >= 2 && this.#headerBytes >= headerBytes(this.#header.readUInt8(1))
  }

  /** Takes the header's bytes from `chunk`; returns where to continue. */
  #takeHeader(chunk: Buffer, from: number): number {
    let at = from
    for (; at < chunk.length && !this.#isHeaderWhole; at += 1) {
      this.#header.writeUInt8(chunk.readUInt8(at), this.#headerBytes)
      this.#headerBytes += 1
    }
    return at
  }

  /** What is wrong with the header, as far as it has arrived. */
  #findObjection(): ViolationCode | undefined {
    if (this.#headerBytes < 2) return undefined
    const first = this.#header.readUInt8(0)
    const second = this.#header.readUInt8(1)
    if (!isLawful(first, second, this.#options.masked)) return 'framing_violation'
    const orderFault = this.#orderFault(first & 0x0f)
    if (orderFault !== undefined || !this.#isHeaderWhole) return orderFault
    const length = payloadBytes(this.#header, 0)
    if (length === UNLAWFUL) return 'framing_violation'
    if (this.#frames >= (this.#options.framesMax ?? Infinity)) return 'frame_too_large'
    // The header alone decides: the sidecar neither waits for nor stores a frame over the limit.
    const bytes = this.#bytes + this.#headerBytes + length
    return bytes > this.#options.bytesMax ? 'frame_too_large' : undefined
  }

  #orderFault(opcode: number): ViolationCode | undefined {
    if (opcode >= OPCODE.close) return undefined
    if (this.#isInMessage !== (opcode === OPCODE.continuation)) return 'framing_violation'
    return opcode === OPCODE.binary ? 'frame_binary' : undefined
  }

  #beginPayload(): void {
    this.#isInPayload = true
    this.#payloadBytes = payloadBytes(this.#header, 0)
    this.#payloadRead = 0
    this.#bytes += this.#headerBytes + this.#payloadBytes
    this.#frames += 1
  }

  /** Takes the payload's bytes from `chunk`, unmasked; returns where to continue. */
  #takePayload(chunk: Buffer, from: number): number {
    const size = Math.min(this.#payloadBytes - this.#payloadRead, chunk.length - from)
    if (size === 0) return from
    const isControl = this.#opcode >= OPCODE.close
    const target = isControl ? this.#control : this.#reserve(size)
    const start = isControl ? this.#payloadRead : this.#messageBytes
    chunk.copy(target, start, from, from + size)
    if (this.#options.masked) this.#unmask(target, start, size)
    this.#payloadRead += size
    if (!isControl) this.#messageBytes += size
    return from + size
  }

  /** The message's buffer, with room for `size` more bytes. */
  #reserve(size: number): Buffer {
    const bytes = this.#messageBytes + size
    if (bytes > this.#message.length) {
      const doubled = Math.max(MESSAGE_BYTES_MIN, bytes, 2 * this.#message.length)
      // Not from the pool: a small remainder of a message would keep the pool in memory.
      const larger = Buffer.allocUnsafeSlow(Math.min(doubled, this.#options.bytesMax))
      this.#message.copy(larger, 0, 0, this.#messageBytes)
      this.#message = larger
    }
    return this.#message
  }

  /** XORs the bytes in place; the mask continues where the previous chunk of the payload ended. */
  #unmask(target: Buffer, start: number, size: number): void {
    const maskAt = this.#headerBytes - 4
    const mask = Buffer.allocUnsafe(4)
    for (let n = 0; n < 4; n += 1) {
      mask.writeUInt8(this.#header.readUInt8(maskAt + ((this.#payloadRead + n) & 3)), n)
    }
    applyMask(target.subarray(start, start + size), mask)
  }

  /** Handles the frame that is now complete; `at` is where the next one starts in `chunk`. */
  #endFrame(chunk: Buffer, at: number): Ending | undefined {
    const opcode = this.#opcode
    const isFinal = this.#header.readUInt8(0) >= 0x80
    this.#isInPayload = false
    this.#headerBytes = 0
    if (opcode >= OPCODE.close) {
      return this.#endControl(opcode, this.#control.subarray(0, this.#payloadBytes))
    }
    this.#isInMessage = true
    return isFinal ? this.#endMessage(chunk.subarray(at)) : undefined
  }

  #endMessage(rest: Buffer): Ending {
    const bytes = this.#message.subarray(0, this.#messageBytes)
    if (!isUtf8(bytes)) return { kind: 'violation', code: 'invalid_utf8' }
    return { kind: 'message', text: bytes.toString('utf8'), rest: copyOf(rest) }
  }

  #endControl(opcode: number, payload: Buffer): Ending | undefined {
    const masked = !this.#options.masked
    if (opcode === OPCODE.close) {
      const violation = findCloseViolation(payload)
      if (violation !== undefined) return { kind: 'violation', code: violation }
      this.#replies.push(closeReplyFrame(payload, { masked }))
      return { kind: 'closed' }
    }
    if (opcode === OPCODE.ping) this.#replies.push(pongFrame(payload, { masked }))
    return undefined
  }
}

/** A copy that keeps neither the original chunk nor Node's pool in memory. */
function copyOf(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(copy)
  return copy
}
