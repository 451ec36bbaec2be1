/** Builds the frames the sidecar itself sends: close, ping, pong and text. */

import { OPCODE } from './frame-header.ts'
import { randomPool } from '../lib/random-pool.ts'

/**
 * `masked` is true towards the gateway, whose client we are; `mask` defaults to four random bytes.
 */
export type Masking = { readonly masked: boolean; readonly mask?: Buffer }

export type CloseFrameOptions = Masking & {
  /** A status code of RFC 6455 §7.4.1. */
  readonly code: number
  /** At most 123 bytes. */
  readonly reason: string
}

/** The most bytes in a control frame's payload (RFC 6455 §5.5). */
export const CONTROL_BYTES_MAX = 125

export function closeFrame({ code, reason, ...masking }: CloseFrameOptions): Buffer {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason))
  payload.writeUInt16BE(code)
  payload.write(reason, 2)
  return controlFrame(OPCODE.close, payload, masking)
}

export function pingFrame(masking: Masking): Buffer {
  return controlFrame(OPCODE.ping, Buffer.alloc(0), masking)
}

/** A pong repeats the payload of the ping it answers. */
export function pongFrame(payload: Buffer, masking: Masking): Buffer {
  return controlFrame(OPCODE.pong, payload, masking)
}

/** The answer to a close frame with this payload: the same status, without the reason. */
export function closeReplyFrame(payload: Buffer, masking: Masking): Buffer {
  return controlFrame(OPCODE.close, payload.subarray(0, 2), masking)
}

export function textFrame(text: string, masking: Masking): Buffer {
  return buildFrame(OPCODE.text, Buffer.from(text), masking)
}

/** Below this, to look at the memory as words costs more than it saves. */
const WORDS_BYTES_MIN = 128

/**
 * XORs `payload` in place with its four-byte mask; doing it twice restores the original (§5.3).
 * Works on four bytes at a time where memory is aligned, and the payload is long enough.
 */
export function applyMask(payload: Buffer, mask: Buffer): void {
  if (payload.length < WORDS_BYTES_MIN) return xorSingly(payload, mask, 0, payload.length)
  const { buffer, byteOffset, length } = payload
  const before = -byteOffset & 3
  xorSingly(payload, mask, 0, before)
  const words = new Int32Array(buffer, byteOffset + before, (length - before) >> 2)
  const turned = Uint8Array.from(mask, (_, n) => mask.readUInt8((before + n) & 3))
  const [word = 0] = new Int32Array(turned.buffer)
  for (let n = 0; n < words.length; n += 1) words[n] = (words[n] ?? 0) ^ word
  xorSingly(payload, mask, before + 4 * words.length, length)
}

function xorSingly(bytes: Buffer, mask: Buffer, from: number, to: number): void {
  for (let n = from; n < to; n += 1) {
    bytes.writeUInt8(bytes.readUInt8(n) ^ mask.readUInt8(n & 3), n)
  }
}

function controlFrame(opcode: number, payload: Buffer, masking: Masking): Buffer {
  if (payload.length > CONTROL_BYTES_MAX) {
    throw new RangeError(`a control frame carries at most 125 bytes, not ${payload.length}`)
  }
  return buildFrame(opcode, payload, masking)
}

/** A final frame with its length in the shortest form. */
function buildFrame(opcode: number, payload: Buffer, { masked, mask }: Masking): Buffer {
  const { length } = payload
  const extension = length < 126 ? 0 : length < 65_536 ? 2 : 8
  const maskAt = 2 + extension
  const payloadAt = maskAt + (masked ? 4 : 0)
  const frame = Buffer.alloc(payloadAt + length)
  frame.writeUInt8(0x80 | opcode, 0)
  const marker = extension === 0 ? length : extension === 2 ? 126 : 127
  frame.writeUInt8((masked ? 0x80 : 0) | marker, 1)
  if (extension === 2) frame.writeUInt16BE(length, 2)
  if (extension === 8) frame.writeBigUInt64BE(BigInt(length), 2)
  payload.copy(frame, payloadAt)
  if (!masked) return frame
  const key = mask ?? randomPool.take(4)
  key.copy(frame, maskAt)
  applyMask(frame.subarray(payloadAt), key)
  return frame
}
