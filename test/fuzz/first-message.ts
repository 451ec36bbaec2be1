/** The reader of a peer's first message against the receiver of `ws`. */

import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import * as fc from 'fast-check'
import { CODES } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { FirstMessageReader } from '@openclaw-k8s/auth-sidecar/websocket/first-message.ts'
import { bytes, chunkSizes, closePayloadOf, cut, fixedBytes, frameOf, frames } from './bytes.ts'
import { promiseOf, pureTarget, type Target } from './target.ts'
import { askWs, type Opinion } from './ws-receiver.ts'

type FirstRead = {
  readonly kind: 'more' | 'message' | 'closed' | 'violation'
  readonly code?: keyof typeof CODES
  readonly text?: string
  /** What was sent after the message. */
  readonly rest?: Buffer
  /** Everything the peer was owed. */
  readonly reply: Buffer
}

/** Reads until the first message, or whatever ends the wait for it. */
export type ReadFirst = (chunks: readonly Buffer[], masked: boolean) => FirstRead

const BYTES_MAX = 1000

export const readFirst: ReadFirst = (chunks, masked) => {
  const reader = new FirstMessageReader({ masked, bytesMax: BYTES_MAX })
  const replies: Buffer[] = []
  for (const [nth, chunk] of chunks.entries()) {
    const answer = reader.push(chunk)
    replies.push(answer.reply)
    const reply = Buffer.concat(replies)
    if (answer.kind === 'more') continue
    if (answer.kind !== 'message') return { ...answer, reply }
    return { ...answer, reply, rest: Buffer.concat([answer.rest, ...chunks.slice(nth + 1)]) }
  }
  return { kind: 'more', reply: Buffer.concat(replies) }
}

const direction = fc.boolean()
const input = direction.chain((masked) =>
  fc.record({ masked: fc.constant(masked), wire: frames(masked), sizes: chunkSizes }),
)

const ask = (wire: Buffer, masked: boolean): Opinion => askWs(wire, { masked, isUtf8Checked: true })

const BAD_CLOSE = 'WS_ERR_INVALID_CLOSE_CODE'
const BAD_UTF8 = 'WS_ERR_INVALID_UTF8'

/** Whether the wire has a frame whose length is not in its shortest form, lawful as far as it. */
const hasLongLength = (wire: Buffer): boolean => {
  for (let at = 0; at + 2 <= wire.length;) {
    const second = wire.readUInt8(at + 1)
    const marker = second & 0x7f
    const start = at + 2 + (marker === 126 ? 2 : marker === 127 ? 8 : 0)
    if (start > wire.length) return false
    const length =
      marker === 126
        ? wire.readUInt16BE(at + 2)
        : marker === 127
          ? Number(wire.readBigUInt64BE(at + 2))
          : marker
    if (marker > 125 && length < (marker === 126 ? 126 : 65_536)) return true
    at = start + (second >= 0x80 ? 4 : 0) + length
  }
  return false
}

/** Why a violation may stand although `ws` has none: a limit of ours, or a rule it does not hold to. */
const whyStricter = (wire: Buffer, code: keyof typeof CODES): string | undefined => {
  if ([1003, 1008, 1009].includes(CODES[code].close)) return 'a limit on first messages'
  return hasLongLength(wire) ? 'a length that is not in its shortest form' : undefined
}

/** The pings that were answered, from the replies: unmasked, or masked with any mask. */
const pongsIn = (reply: Buffer): readonly Buffer[] => {
  const pongs: Buffer[] = []
  for (let at = 0; at < reply.length;) {
    const second = reply.readUInt8(at + 1)
    const isMasked = second >= 0x80
    const start = at + (isMasked ? 6 : 2)
    const end = start + (second & 0x7f)
    const payload = Buffer.from(reply.subarray(start, end))
    const mask = reply.subarray(at + 2, start)
    if (isMasked) payload.forEach((byte, nth) => (payload[nth] = byte ^ (mask[nth & 3] ?? 0)))
    if (reply[at] === 0x8a) pongs.push(payload)
    at = end
  }
  return pongs
}

/** Masks of our own frames are random. */
const comparable = ({ reply, ...read }: FirstRead) => ({ ...read, pongs: pongsIn(reply) })

export const firstMessageTarget = (subject: ReadFirst = readFirst): Target =>
  pureTarget('first-message', [
    promiseOf(
      { promise: 'chunking changes nothing in a first message', runs: 100 },
      input,
      ({ masked, wire, sizes }) => {
        const whole = subject([Buffer.from(wire)], masked)
        deepStrictEqual(comparable(subject(cut(wire, sizes), masked)), comparable(whole))
      },
    ),
    promiseOf(
      { promise: 'a first message is the one ws reads, with nothing lost behind it', runs: 150 },
      input,
      ({ masked, wire }) => {
        const read = subject([Buffer.from(wire)], masked)
        if (read.kind !== 'message') return
        const { rest = Buffer.alloc(0), text } = read
        const consumed = wire.subarray(0, wire.length - rest.length)
        const { messages, objection } = ask(consumed, masked)
        strictEqual(objection, undefined)
        deepStrictEqual(messages, [{ data: Buffer.from(text ?? ''), isBinary: false }])
        deepStrictEqual(rest, wire.subarray(consumed.length))
        // Not a byte too many was taken either.
        deepStrictEqual(ask(consumed.subarray(0, -1), masked).messages, [])
      },
    ),
    promiseOf(
      { promise: 'ws refuses, waits for and closes the same inputs', runs: 150 },
      input,
      ({ masked, wire }) => {
        const { kind, code } = subject([Buffer.from(wire)], masked)
        const { messages, objection, closeCode } = ask(wire, masked)
        if (kind === 'violation' && code !== undefined) {
          ok(objection !== undefined || whyStricter(wire, code) !== undefined, code)
        }
        if (kind === 'more')
          deepStrictEqual({ messages, objection }, { messages: [], objection: undefined })
        // A separate promise checks close codes.
        if (kind === 'closed' && objection !== BAD_CLOSE && objection !== BAD_UTF8) {
          deepStrictEqual(
            { messages, isClosed: closeCode !== undefined },
            { messages: [], isClosed: true },
          )
        }
      },
    ),
    promiseOf(
      { promise: 'every ping before the first message is answered once, in order', runs: 75 },
      input,
      ({ masked, wire }) => {
        const read = subject([Buffer.from(wire)], masked)
        if (read.kind === 'violation') return
        const consumed = wire.subarray(0, wire.length - (read.rest?.length ?? 0))
        deepStrictEqual(pongsIn(read.reply), ask(consumed, masked).pings)
      },
    ),
    promiseOf(
      { promise: 'text that is not UTF-8 is closed with 1007', runs: 100 },
      fc.record({ masked: direction, text: bytes(12), mask: fixedBytes(4), sizes: chunkSizes }),
      ({ masked, text, mask, sizes }) => {
        const wire = frameOf({ first: 0x81, masked, payload: text, mask })
        const { kind, code } = subject(cut(wire, sizes), masked)
        if (ask(wire, masked).objection !== BAD_UTF8) return strictEqual(kind, 'message')
        strictEqual(kind, 'violation')
        strictEqual(code === undefined ? undefined : CODES[code].close, 1007)
      },
    ),
    promiseOf(
      { promise: 'a first close frame with an unlawful code is a violation', runs: 100 },
      fc.record({
        masked: direction,
        code: fc.oneof(fc.nat(65_535), fc.integer({ min: 995, max: 1020 })),
        mask: fixedBytes(4),
        sizes: chunkSizes,
      }),
      ({ masked, code, mask, sizes }) => {
        const payload = closePayloadOf(code, Buffer.alloc(0))
        const wire = frameOf({ first: 0x88, masked, payload, mask })
        const isBad = ask(wire, masked).objection === BAD_CLOSE
        strictEqual(subject(cut(wire, sizes), masked).kind, isBad ? 'violation' : 'closed')
      },
    ),
  ])
