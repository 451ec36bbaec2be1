/** Builds the frames the sidecar itself says: close, ping, pong and text. */

import { OPCODE } from './frame-header.ts'
import { takeRandom } from './random-stock.ts'

/** `masked` towards the gateway, whose client we are; `mask` defaults to four random bytes. */
export type Masking = { readonly masked: boolean; readonly mask?: Buffer }

export type CloseFrameOptions = Masking & {
  /** A status of RFC 6455 §7.4.1. */
  readonly code: number
  /** At most 123 bytes. */
  readonly reason: string
}

/** Bytes a control frame may carry (RFC 6455 §5.5). */
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

/** The answer to a close frame with that payload: the same status, without its reason. */
export function closeReplyFrame(payload: Buffer, masking: Masking): Buffer {
  return controlFrame(OPCODE.close, payload.subarray(0, 2), masking)
}

export function textFrame(text: string, masking: Masking): Buffer {
  return buildFrame(OPCODE.text, Buffer.from(text), masking)
}

/** XORs `payload` in place with its four-byte mask; twice gives the original (§5.3). */
export function applyMask(payload: Buffer, mask: Buffer): void {
  const [a = 0, b = 0, c = 0, d = 0] = mask
  const key = [a, b, c, d]
  for (let at = 0; at < payload.length; at += 1) {
    payload[at] = (payload[at] ?? 0) ^ (key[at & 3] ?? 0)
  }
}

function controlFrame(opcode: number, payload: Buffer, masking: Masking): Buffer {
  if (payload.length > CONTROL_BYTES_MAX) {
    throw new RangeError(`a control frame carries 125 bytes, not ${payload.length}`)
  }
  return buildFrame(opcode, payload, masking)
}

/** A final frame, its length in the shortest form. */
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
  const key = mask ?? takeRandom(4)
  key.copy(frame, maskAt)
  applyMask(frame.subarray(payloadAt), key)
  return frame
}
