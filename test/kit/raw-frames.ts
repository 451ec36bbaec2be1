/** Frames made and read by hand: what a WebSocket library would never send, and what came back. */

import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'

export type RawFrame = {
  /** FIN, RSV and opcode; 0x81 (a whole text message) unless said otherwise. */
  readonly first?: number
  readonly payload?: string | Buffer
  /** True, as it must be from a worker, unless said otherwise. */
  readonly isMasked?: boolean
  /** Bytes that hold the length (0, 2 or 8); the fewest possible unless given. */
  readonly lengthBytes?: 0 | 2 | 8
  /** The length in the header, if it is not the payload's. */
  readonly toldLength?: number
}

export type ReadFrame = { readonly first: number; readonly payload: Buffer }

const leastBytes = (length: number): 0 | 2 | 8 => (length < 126 ? 0 : length < 65_536 ? 2 : 8)

export const rawFrame = (frame: RawFrame = {}): Buffer => {
  const { first = 0x81, isMasked = true } = frame
  const payload = Buffer.from(frame.payload ?? '')
  const told = frame.toldLength ?? payload.length
  const lengthBytes = frame.lengthBytes ?? leastBytes(told)
  const head = Buffer.alloc(2 + lengthBytes)
  head[0] = first
  head[1] = (isMasked ? 0x80 : 0) | (lengthBytes === 0 ? told : lengthBytes === 2 ? 126 : 127)
  if (lengthBytes === 2) head.writeUInt16BE(told, 2)
  if (lengthBytes === 8) head.writeBigUInt64BE(BigInt(told), 2)
  if (!isMasked) return Buffer.concat([head, payload])
  const mask = randomBytes(4)
  return Buffer.concat([head, mask, payload.map((byte, at) => byte ^ (mask[at & 3] ?? 0))])
}

/** Everything the server still says, frame by frame, until it ends the connection. */
export const readFrames = async (socket: Socket): Promise<readonly ReadFrame[]> => {
  const chunks: Buffer[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.once('end', resolve)
  socket.once('close', () => resolve())
  socket.resume()
  await promise
  socket.destroy()
  return parseFrames(Buffer.concat(chunks))
}

/** The code and reason of the close frame among `frames`; 1006 without one. */
export const closeOf = (frames: readonly ReadFrame[]) => {
  const payload = frames.find(({ first }) => (first & 0x0f) === 0x8)?.payload
  if (payload === undefined) return { code: 1006, reason: '' }
  return { code: payload.readUInt16BE(0), reason: payload.toString('utf8', 2) }
}

const parseFrames = (bytes: Buffer): readonly ReadFrame[] => {
  const frames: ReadFrame[] = []
  let at = 0
  while (at + 2 <= bytes.length) {
    const first = bytes.readUInt8(at)
    const marker = bytes.readUInt8(at + 1) & 0x7f
    const start = at + 2 + (marker === 126 ? 2 : marker === 127 ? 8 : 0)
    const length =
      marker === 126
        ? bytes.readUInt16BE(at + 2)
        : marker === 127
          ? Number(bytes.readBigUInt64BE(at + 2))
          : marker
    frames.push({ first, payload: bytes.subarray(start, start + length) })
    at = start + length
  }
  return frames
}
