/** Walks the frame headers of one direction of a stream, so that bytes can be relayed untouched. */

import {
  HEADER_BYTES_MAX,
  OPCODE,
  UNLAWFUL,
  headerBytes,
  isLawful,
  payloadBytes,
} from './frame-header.ts'

export type Violation = 'framing_violation' | 'message_too_big' | 'empty_fragments_exceeded'

export type ScannerOptions = {
  /** Whether frames of this direction must be masked: true from the worker, false to it. */
  readonly masked: boolean
  /** Bytes of a message, all its fragments together; a message of exactly this size passes. */
  readonly messageBytesMax: number
  /** Unfinished empty fragments allowed in a row. */
  readonly emptyFragmentsMax: number
}

/**
 * `scan` tells how many bytes of a chunk may be relayed; `takeHeld` yields the bytes of earlier
 * chunks that go before them. A header is let through only when it is complete and lawful, so what
 * was relayed always ends at a frame boundary or inside a payload: a close frame can follow the
 * former at any moment.
 */
export class FrameScanner {
  /** Bytes let through. */
  bytes = 0
  /** Frames let through to their last byte. */
  frames = 0
  /** Text and binary messages let through to their last byte. */
  messages = 0
  /** Whether a close frame was let through; whatever follows it is discarded. */
  closeSeen = false
  violation: Violation | undefined

  readonly #masked: boolean
  readonly #messageBytesMax: number
  readonly #emptyFragmentsMax: number
  /** A header of which some bytes are missing; few chunks end inside one. */
  #held: Buffer | undefined
  #heldBytes = 0
  #released: Buffer | undefined
  #payloadLeft = 0
  #isClose = false
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

  /** Whether what was let through so far ends with a whole frame. */
  get atBoundary(): boolean {
    return this.#payloadLeft === 0
  }

  /** Whether nothing more will be let through. */
  get isDone(): boolean {
    if (this.closeSeen || this.violation !== undefined) return true
    return this.#isStopping && this.#payloadLeft === 0
  }

  /** Lets through the rest of the frame under way and nothing after it. */
  stop(): void {
    this.#isStopping = true
  }

  /** How many of the first `length` bytes of `chunk` may be relayed now, after those of `takeHeld`. */
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

  /** The start of a header that came with earlier chunks and that the last `scan` let through. */
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

  /** Bytes of the header at `at`, or 0 when it is incomplete or was refused. */
  #walkHeader(chunk: Buffer, at: number, length: number): number {
    if (this.#held !== undefined) return this.#completeHeld(this.#held, chunk, length)
    const available = length - at
    if (available >= 2) {
      const size = headerBytes(chunk.readUInt8(at + 1))
      if (available >= size) return this.#admit(chunk, at) ? size : 0
    }
    this.#held = Buffer.alloc(HEADER_BYTES_MAX)
    this.#heldBytes = chunk.copy(this.#held, 0, at, length)
    return 0
  }

  /** As `#walkHeader`, for a header begun in earlier chunks: it goes on where this chunk starts. */
  #completeHeld(held: Buffer, chunk: Buffer, length: number): number {
    const heldBytes = this.#heldBytes
    const total = heldBytes + chunk.copy(held, heldBytes, 0, length)
    const size = headerBytes(held.readUInt8(1))
    if (total < size) {
      this.#heldBytes = total
      return 0
    }
    // It is the relay's from here on, since a slow sink may still queue these bytes.
    this.#held = undefined
    if (!this.#admit(held, 0)) return 0
    this.#released = held.subarray(0, heldBytes)
    this.bytes += heldBytes
    return size - heldBytes
  }

  #admit(header: Buffer, at: number): boolean {
    const first = header.readUInt8(at)
    const length = payloadBytes(header, at)
    const opcode = first & 0x0f
    const isFinal = first >= 0x80
    const isData = opcode < OPCODE.close
    this.violation =
      length === UNLAWFUL || !isLawful(first, header.readUInt8(at + 1), this.#masked)
        ? 'framing_violation'
        : isData
          ? this.#admitData(opcode, isFinal, length)
          : undefined
    if (this.violation !== undefined) return false
    this.#isClose = opcode === OPCODE.close
    this.#endsMessage = isData && isFinal
    this.#payloadLeft = length
    if (length === 0) this.#endFrame()
    return true
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
    this.closeSeen = this.#isClose
  }
}
