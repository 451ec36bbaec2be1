/** Walks the frame headers of one direction of a stream, so that bytes can be relayed untouched. */

import { findCloseViolation } from './close-payload.ts'
import {
  CONTROL_FRAME_BYTES_MAX,
  HEADER_BYTES_MAX,
  OPCODE,
  UNLAWFUL,
  headerBytes,
  isLawful,
  payloadBytes,
} from './frame-header.ts'
import { applyMask } from './frames.ts'

export type Violation =
  | 'framing_violation'
  | 'invalid_utf8'
  | 'message_too_big'
  | 'empty_fragments_exceeded'

export type ScannerOptions = {
  /** Whether frames in this direction must be masked: true from the worker, false to it. */
  readonly masked: boolean
  /** The most bytes of a message, all its fragments together; exactly this size passes. */
  readonly messageBytesMax: number
  /** The most unfinished empty fragments in a row. */
  readonly emptyFragmentsMax: number
}

/** What `#admit` returns for a close frame whose payload is incomplete. */
const INCOMPLETE = -1

/**
 * `scan` returns how many bytes of a chunk may be relayed; `takeHeld` returns the bytes of earlier
 * chunks that go before them. A header passes only when it is complete and lawful, so relayed bytes
 * always end at a frame boundary or inside a payload, and at a boundary a close frame can follow at
 * any moment. A close frame passes only as a whole, since its payload can be unlawful too: no other
 * frame could follow a part of it.
 */
export class FrameScanner {
  /** Bytes that passed. */
  bytes = 0
  /** Frames that passed to their last byte. */
  frames = 0
  /** Text and binary messages that passed to their last byte. */
  messages = 0
  /** Whether a close frame passed; everything after it is discarded. */
  closeSeen = false
  violation: Violation | undefined

  readonly #masked: boolean
  readonly #messageBytesMax: number
  readonly #emptyFragmentsMax: number
  /** A header, or a close frame, with bytes missing; few chunks end inside one. */
  #held: Buffer | undefined
  #heldBytes = 0
  #released: Buffer | undefined
  #payloadLeft = 0
  #endsMessage = false
  #isStopping = false
  #isInMessage = false
  #messageBytes = 0
  #emptyFragments = 0

  constructor(options: ScannerOptions) {
    this.#masked = options.masked
    this.#messageBytesMax = options.messageBytesMax
    this.#emptyFragmentsMax = options.emptyFragmentsMax
  }

  /** Whether the bytes that passed so far end with a complete frame. */
  get atBoundary(): boolean {
    return this.#payloadLeft === 0
  }

  /** Whether nothing more will pass. */
  get isDone(): boolean {
    if (this.closeSeen || this.violation !== undefined) return true
    return this.#isStopping && this.#payloadLeft === 0
  }

  /** Lets the rest of the current frame pass and nothing after it. */
  stop(): void {
    this.#isStopping = true
  }

  /**
   * How many of the first `length` bytes of `chunk` may be relayed now, after those of `takeHeld`.
   */
  scan(chunk: Buffer, length = chunk.length): number {
    let at = 0
    while (at < length && !this.isDone) {
      const step =
        this.#payloadLeft > 0 ? this.#walkPayload(length - at) : this.#walkHeader(chunk, at, length)
      if (step === 0) break
      at += step
    }
    this.bytes += at
    return at
  }

  /** The bytes from earlier chunks that the last `scan` let pass. */
  takeHeld(): Buffer | undefined {
    const released = this.#released
    this.#released = undefined
    return released
  }

  #walkPayload(available: number): number {
    const step = Math.min(available, this.#payloadLeft)
    this.#payloadLeft -= step
    if (this.#payloadLeft === 0) this.#endFrame()
    return step
  }

  /** Bytes that pass at `at` with the header there; 0 if it is incomplete or was refused. */
  #walkHeader(chunk: Buffer, at: number, length: number): number {
    if (this.#held !== undefined) return this.#completeHeld(this.#held, chunk, length)
    const available = length - at
    if (available >= 2) {
      const size = headerBytes(chunk.readUInt8(at + 1))
      if (available >= size) {
        const step = this.#admit(chunk, at, size, available)
        if (step !== INCOMPLETE) return step
      }
    }
    const isClose = (chunk.readUInt8(at) & 0x0f) === OPCODE.close
    this.#held = Buffer.alloc(isClose ? CONTROL_FRAME_BYTES_MAX : HEADER_BYTES_MAX)
    this.#heldBytes = chunk.copy(this.#held, 0, at, length)
    return 0
  }

  /**
   * As `#walkHeader`, for a header that earlier chunks began; it continues at the start of this
   * one.
   */
  #completeHeld(held: Buffer, chunk: Buffer, length: number): number {
    const heldBytes = this.#heldBytes
    const total = heldBytes + chunk.copy(held, heldBytes, 0, length)
    const size = headerBytes(held.readUInt8(1))
    const step = total < size ? INCOMPLETE : this.#admit(held, 0, size, total)
    if (step === INCOMPLETE) {
      this.#heldBytes = total
      return 0
    }
    // From here on the relay owns it, since a slow sink may still queue these bytes.
    this.#held = undefined
    if (step === 0) return 0
    this.#released = held.subarray(0, heldBytes)
    this.bytes += heldBytes
    return step - heldBytes
  }

  /**
   * How many of the `available` bytes at `at` pass with the complete header of `size` bytes there:
   * the header alone, a whole close frame, 0 for a violation, or `INCOMPLETE`.
   */
  #admit(bytes: Buffer, at: number, size: number, available: number): number {
    const first = bytes.readUInt8(at)
    const length = payloadBytes(bytes, at)
    const opcode = first & 0x0f
    const isFinal = first >= 0x80
    const isData = opcode < OPCODE.close
    this.violation =
      length === UNLAWFUL || !isLawful(first, bytes.readUInt8(at + 1), this.#masked)
        ? 'framing_violation'
        : isData
          ? this.#admitData(opcode, isFinal, length)
          : undefined
    if (this.violation !== undefined) return 0
    if (opcode === OPCODE.close) return this.#admitClose(bytes, at, size + length, available)
    this.#endsMessage = isData && isFinal
    this.#payloadLeft = length
    if (length === 0) this.#endFrame()
    return size
  }

  #admitClose(bytes: Buffer, at: number, frameBytes: number, available: number): number {
    if (available < frameBytes) return INCOMPLETE
    this.violation = findCloseViolation(this.#payloadOf(bytes.subarray(at, at + frameBytes)))
    if (this.violation !== undefined) return 0
    this.frames += 1
    this.closeSeen = true
    return frameBytes
  }

  /** The unmasked payload of a short frame; the frame itself is relayed unchanged. */
  #payloadOf(frame: Buffer): Buffer {
    if (!this.#masked) return frame.subarray(2)
    const payload = Buffer.from(frame.subarray(6))
    applyMask(payload, frame.subarray(2, 6))
    return payload
  }

  #admitData(opcode: number, isFinal: boolean, length: number): Violation | undefined {
    if (this.#isInMessage !== (opcode === OPCODE.continuation)) return 'framing_violation'
    this.#messageBytes += length
    if (this.#messageBytes > this.#messageBytesMax) return 'message_too_big'
    this.#emptyFragments = length === 0 && !isFinal ? this.#emptyFragments + 1 : 0
    if (this.#emptyFragments > this.#emptyFragmentsMax) return 'empty_fragments_exceeded'
    this.#isInMessage = !isFinal
    if (isFinal) this.#messageBytes = 0
    return undefined
  }

  #endFrame(): void {
    this.frames += 1
    if (this.#endsMessage) this.messages += 1
  }
}
