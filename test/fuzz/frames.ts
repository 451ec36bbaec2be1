/** The frame scanner against the receiver of `ws`: nothing unlawful is relayed, and nothing lost. */

import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import * as fc from 'fast-check'
import { CODES } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { FrameScanner } from '@openclaw-k8s/auth-sidecar/websocket/scanner.ts'
import {
  chunkSizes,
  closePayloadOf,
  cut,
  fixedBytes,
  frameOf,
  frames,
  lawfulFrames,
} from './bytes.ts'
import { promiseOf, pureTarget, type Target } from './target.ts'
import { askWs } from './ws-receiver.ts'

type Relayed = {
  readonly out: Buffer
  readonly violation: keyof typeof CODES | undefined
  readonly counts: { readonly bytes: number; readonly frames: number; readonly messages: number }
}

/** Relays chunks of one direction, as `Direction` does. */
export type Relay = (chunks: readonly Buffer[], masked: boolean) => Relayed

const MESSAGE_BYTES_MAX = 400
const EMPTY_FRAGMENTS_MAX = 3

export const relay: Relay = (chunks, masked) => {
  const scanner = new FrameScanner({
    masked,
    messageBytesMax: MESSAGE_BYTES_MAX,
    emptyFragmentsMax: EMPTY_FRAGMENTS_MAX,
  })
  const out: Buffer[] = []
  for (const chunk of chunks) {
    const size = scanner.scan(chunk)
    const held = scanner.takeHeld()
    if (held !== undefined) out.push(held)
    out.push(chunk.subarray(0, size))
  }
  const { bytes: relayed, frames: whole, messages, violation } = scanner
  return {
    out: Buffer.concat(out),
    violation,
    counts: { bytes: relayed, frames: whole, messages },
  }
}

/** Statuses that may be said (RFC 6455 §7.4 and IANA's registry), looked up and not calculated. */
const isCloseCode = (code: number): boolean =>
  [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014].includes(code) ||
  (code >= 3000 && code <= 4999)

const BAD_CLOSE = 'WS_ERR_INVALID_CLOSE_CODE'
const direction = fc.boolean()
const input = direction.chain((masked) =>
  fc.record({ masked: fc.constant(masked), wire: frames(masked), sizes: chunkSizes }),
)

const ask = (wire: Buffer, masked: boolean) =>
  askWs(wire, { masked, messageBytesMax: MESSAGE_BYTES_MAX, isUtf8Checked: false })

/** What the scanner refuses and `ws` takes. Any other difference is a fault of one of them. */
const whyStricter = (
  wire: Buffer,
  masked: boolean,
  { out, violation }: Relayed,
): string | undefined => {
  if (violation === 'empty_fragments_exceeded') return 'too many empty fragments in a row'
  // `ws` checks texts and close reasons, or neither. So it is asked about this close frame alone.
  if (violation === 'invalid_utf8') {
    const { objection } = askWs(wire.subarray(out.length), { masked, isUtf8Checked: true })
    return objection === 'WS_ERR_INVALID_UTF8' ? 'a close reason that is not UTF-8' : undefined
  }
  const marker = (wire[out.length + 1] ?? 0) & 0x7f
  const isLong = marker === 126 && wire.readUInt16BE(out.length + 2) < 126
  const isLonger = marker === 127 && wire.readBigUInt64BE(out.length + 2) < 65_536n
  return isLong || isLonger ? 'a length that is not in its shortest form' : undefined
}

export const framesTarget = (subject: Relay = relay): Target =>
  pureTarget('frames', [
    promiseOf(
      { promise: 'chunking changes nothing', runs: 100 },
      input,
      ({ masked, wire, sizes }) => {
        deepStrictEqual(subject(cut(wire, sizes), masked), subject([Buffer.from(wire)], masked))
      },
    ),
    promiseOf(
      { promise: 'what is relayed is a prefix of what arrived', runs: 100 },
      input,
      ({ masked, wire, sizes }) => {
        const { out, counts } = subject(cut(wire, sizes), masked)
        deepStrictEqual(out, wire.subarray(0, out.length))
        strictEqual(counts.bytes, out.length)
      },
    ),
    promiseOf(
      { promise: 'nothing that ws refuses is relayed, and both count alike', runs: 150 },
      input,
      ({ masked, wire }) => {
        const { out, counts } = subject([Buffer.from(wire)], masked)
        const { messages, objection } = ask(out, masked)
        // A separate promise checks close codes.
        if (objection !== BAD_CLOSE) strictEqual(objection, undefined)
        strictEqual(counts.messages, messages.length)
      },
    ),
    promiseOf(
      {
        promise: 'nothing that ws accepts is refused, except what is stricter by design',
        runs: 150,
      },
      input,
      ({ masked, wire }) => {
        const relayed = subject([Buffer.from(wire)], masked)
        if (relayed.violation === undefined) return
        ok(
          ask(wire, masked).objection !== undefined ||
            whyStricter(wire, masked, relayed) !== undefined,
          `${relayed.violation} after ${relayed.out.length} bytes`,
        )
      },
    ),
    promiseOf(
      { promise: 'an unlawful close code is a violation and is never relayed', runs: 100 },
      fc.record({
        masked: direction,
        code: fc.oneof(fc.nat(65_535), fc.integer({ min: 995, max: 1020 })),
        reason: fc.string({ maxLength: 20 }),
        mask: fixedBytes(4),
        sizes: chunkSizes,
      }),
      ({ masked, code, reason, mask, sizes }) => {
        const payload = closePayloadOf(code, Buffer.from(reason))
        const wire = frameOf({ first: 0x88, masked, payload, mask })
        const { out, violation } = subject(cut(wire, sizes), masked)
        if (isCloseCode(code)) strictEqual(violation, undefined)
        else {
          ok(violation !== undefined && CODES[violation].close === 1002, violation ?? 'relayed')
          strictEqual(out.length, 0)
        }
      },
    ),
    promiseOf(
      { promise: 'lawful frames within the limits are relayed whole', runs: 75 },
      direction.chain((masked) =>
        fc.record({ masked: fc.constant(masked), wire: lawfulFrames(masked), sizes: chunkSizes }),
      ),
      ({ masked, wire, sizes }) => {
        const relayed = subject(cut(wire, sizes), masked)
        const isOverLimit = ['message_too_big', 'empty_fragments_exceeded']
        if (isOverLimit.includes(relayed.violation ?? '')) return
        strictEqual(relayed.violation, undefined)
        // Whatever follows a close frame is discarded.
        const { closeCode } = ask(relayed.out, masked)
        if (closeCode === undefined) strictEqual(relayed.out.length, wire.length)
      },
    ),
  ])
