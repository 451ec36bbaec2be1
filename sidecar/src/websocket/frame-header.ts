/** What a WebSocket frame header may contain (RFC 6455 §5.2 and §5.5), read without allocating. */

export const OPCODE = {
  continuation: 0x0,
  text: 0x1,
  binary: 0x2,
  close: 0x8,
  ping: 0x9,
  pong: 0xa,
} as const

/** Two bytes, a 64-bit length and a mask: the longest header. */
export const HEADER_BYTES_MAX = 14

/** Two bytes, a mask and 125 bytes: the longest control frame. */
export const CONTROL_FRAME_BYTES_MAX = 131

/** Stands for a payload length that no lawful header has. */
export const UNLAWFUL = -1

/** The length of a header in bytes, read from its second byte. */
export function headerBytes(second: number): number {
  const marker = second & 0x7f
  const extension = marker === 127 ? 8 : marker === 126 ? 2 : 0
  return 2 + extension + (second >= 0x80 ? 4 : 0)
}

/**
 * The payload length that the complete header at `at` announces, or `UNLAWFUL` if it is not in its
 * shortest form or exceeds 2^53. Two spellings of one length let two parsers see two streams.
 */
export function payloadBytes(bytes: Buffer, at: number): number {
  const marker = bytes.readUInt8(at + 1) & 0x7f
  if (marker < 126) return marker
  if (marker === 126) {
    const length = bytes.readUInt16BE(at + 2)
    return length < 126 ? UNLAWFUL : length
  }
  const length = bytes.readUInt32BE(at + 2) * 2 ** 32 + bytes.readUInt32BE(at + 6)
  return length < 65_536 || length > Number.MAX_SAFE_INTEGER ? UNLAWFUL : length
}

/**
 * Whether the first two bytes may start a frame in this direction. No extension is ever negotiated,
 * so every RSV bit is a violation.
 */
export function isLawful(first: number, second: number, masked: boolean): boolean {
  const opcode = first & 0x0f
  if ((first & 0x70) !== 0 || (opcode & 0x7) > 2) return false
  if (second >= 0x80 !== masked) return false
  if (opcode < OPCODE.close) return true
  const length = second & 0x7f
  // A close frame has an empty body or at least a two-byte status (§5.5.1).
  if (opcode === OPCODE.close && length === 1) return false
  return first >= 0x80 && length <= 125
}
