/** Reads one text message from a peer before its bytes are relayed, answering control frames. */

import { isUtf8 } from 'node:buffer'

import { OPCODE, UNLAWFUL, headerBytes, isLawful, payloadBytes } from './frame-header.ts'
import { applyMask, closeReplyFrame, pongFrame } from './frames.ts'

export type FirstMessageOptions = {
  /** Whether the peer's frames must be masked: true for a worker, false for a gateway. */
  readonly masked: boolean
  /** Bytes read until the message is whole, with headers and control frames. */
  readonly bytesMax: number
}

/** `reply` is what the peer is owed, pongs and the answer to its close frame; often empty. */
export type FirstMessage = { readonly reply: Buffer } & (
  | { readonly kind: 'more' }
  | { readonly kind: 'message'; readonly text: string; readonly rest: Buffer }
  | { readonly kind: 'closed' }
  | {
      readonly kind: 'violation'
      readonly code: 'framing_violation' | 'frame_binary' | 'frame_too_large'
    }
)

type Ending = Exclude<
  FirstMessage extends infer T ? (T extends unknown ? Omit<T, 'reply'> : never) : never,
  { kind: 'more' }
>
type ViolationCode = Extract<FirstMessage, { kind: 'violation' }>['code']
type Frame = { readonly opcode: number; readonly isFinal: boolean; readonly payload: Buffer }

/**
 * Feed it chunks until it answers something else than `more`; then it is spent, and `rest` is what
 * the peer sent after the message. Work and memory are linear in the bytes, however small the
 * chunks are: whoever speaks here is not admitted yet.
 */
export class FirstMessageReader {
  readonly #options: FirstMessageOptions
  #buffer = Buffer.alloc(1024)
  #size = 0
  #at = 0
  #isInMessage = false
  #parts: Buffer[] = []
  #replies: Buffer[] = []

  constructor(options: FirstMessageOptions) {
    this.#options = options
  }

  push(chunk: Buffer): FirstMessage {
    this.#append(chunk)
    const ending = this.#read()
    const reply = Buffer.concat(this.#replies)
    this.#replies = []
    return ending === undefined ? { kind: 'more', reply } : { ...ending, reply }
  }

  #append(chunk: Buffer): void {
    const size = this.#size + chunk.length
    if (size > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(size, 2 * this.#buffer.length))
      this.#buffer.copy(larger, 0, 0, this.#size)
      this.#buffer = larger
    }
    chunk.copy(this.#buffer, this.#size)
    this.#size = size
  }

  #read(): Ending | undefined {
    for (;;) {
      const frame = this.#nextFrame()
      if (frame === undefined) return undefined
      if (typeof frame === 'string') return { kind: 'violation', code: frame }
      const ending = frame.opcode < OPCODE.close ? this.#readData(frame) : this.#readControl(frame)
      if (ending !== undefined) return ending
    }
  }

  /** The next frame, its payload unmasked; undefined while it is incomplete. */
  #nextFrame(): Frame | ViolationCode | undefined {
    const { masked, bytesMax } = this.#options
    const at = this.#at
    if (this.#size - at < 2) return undefined
    const first = this.#buffer.readUInt8(at)
    const second = this.#buffer.readUInt8(at + 1)
    if (!isLawful(first, second, masked)) return 'framing_violation'
    const opcode = first & 0x0f
    const orderFault = this.#orderFault(opcode)
    if (orderFault !== undefined) return orderFault
    const start = at + headerBytes(second)
    if (this.#size < start) return undefined
    const length = payloadBytes(this.#buffer, at)
    if (length === UNLAWFUL) return 'framing_violation'
    // Told by the header alone: nobody is waited for, and nothing is stored, beyond the limit.
    if (start + length > bytesMax) return 'frame_too_large'
    if (this.#size < start + length) return undefined
    this.#at = start + length
    const payload = this.#buffer.subarray(start, this.#at)
    if (masked) applyMask(payload, this.#buffer.subarray(start - 4, start))
    return { opcode, isFinal: first >= 0x80, payload }
  }

  #orderFault(opcode: number): ViolationCode | undefined {
    if (opcode >= OPCODE.close) return undefined
    if (this.#isInMessage !== (opcode === OPCODE.continuation)) return 'framing_violation'
    return opcode === OPCODE.binary ? 'frame_binary' : undefined
  }

  #readData({ isFinal, payload }: Frame): Ending | undefined {
    this.#isInMessage = true
    if (payload.length > 0) this.#parts.push(payload)
    if (!isFinal) return undefined
    const bytes = Buffer.concat(this.#parts)
    if (!isUtf8(bytes)) return { kind: 'violation', code: 'framing_violation' }
    const rest = Buffer.from(this.#buffer.subarray(this.#at, this.#size))
    return { kind: 'message', text: bytes.toString('utf8'), rest }
  }

  #readControl({ opcode, payload }: Frame): Ending | undefined {
    const masked = !this.#options.masked
    if (opcode === OPCODE.close) {
      this.#replies.push(closeReplyFrame(payload, { masked }))
      return { kind: 'closed' }
    }
    if (opcode === OPCODE.ping) this.#replies.push(pongFrame(payload, { masked }))
    return undefined
  }
}
