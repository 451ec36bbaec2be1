/** A peer that breaks the protocol or a limit ends the stream, with the same close code at both ends. */

import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { closeFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { test } from 'tap'
import {
  MESSAGE_MAX,
  EMPTY,
  closeAtEnd,
  rawStream,
  realStream,
  closeOf,
  rawSocketOf,
  up,
  down,
} from '../kit/splice-rig.ts'

test('the largest message the product sends passes, one byte more is 1009 at both ends', async (t) => {
  const { worker, gateway, summary } = await realStream(t)
  const received = once(gateway, 'message')
  worker.send(Buffer.alloc(MESSAGE_MAX, 1))
  const [message] = (await received) as [Buffer]
  t.equal(message.length, MESSAGE_MAX)
  const closes = Promise.all([closeOf(worker), closeOf(gateway)])
  worker.send(Buffer.alloc(MESSAGE_MAX + 1, 1))
  t.same(await closes, ['1009 message_too_big', '1009 message_too_big'])
  t.match(await summary, { code: 'message_too_big', counts: { messagesUp: 1 } })
})

test('the message limit applies to the gateway as well', async (t) => {
  const { worker, gateway, summary } = await realStream(t, { messageBytesMax: 1000 })
  const closes = Promise.all([closeOf(worker), closeOf(gateway)])
  gateway.send('x'.repeat(1001))
  t.same(await closes, ['1009 message_too_big', '1009 message_too_big'])
  t.equal((await summary).code, 'message_too_big')
})

test('a framing violation of the worker is 1002 at both ends', async (t) => {
  const { worker, gateway, summary } = await realStream(t)
  const closes = Promise.all([closeOf(worker), closeOf(gateway)])
  rawSocketOf(worker).write(down('unmasked'))
  t.same(await closes, ['1002 framing_violation', '1002 framing_violation'])
  t.equal((await summary).code, 'framing_violation')
})

test('a framing violation of the gateway is 1002 at both ends', async (t) => {
  const { worker, gateway, summary } = await realStream(t)
  const closes = Promise.all([closeOf(worker), closeOf(gateway)])
  rawSocketOf(gateway).write(up('masked'))
  t.same(await closes, ['1002 framing_violation', '1002 framing_violation'])
  t.equal((await summary).code, 'framing_violation')
})

test('too many empty fragments are 1008 at both ends', async (t) => {
  const { worker, gateway, summary } = await realStream(t)
  const closes = Promise.all([closeOf(worker), closeOf(gateway)])
  const empty = Buffer.from('008000000000', 'hex')
  const start = Buffer.from('018000000000', 'hex')
  const flood = Array.from({ length: 1000 }, () => empty)
  rawSocketOf(worker).write(Buffer.concat([start, ...flood]))
  t.same(await closes, ['1008 empty_fragments_exceeded', '1008 empty_fragments_exceeded'])
  t.equal((await summary).code, 'empty_fragments_exceeded')
})

for (const [name, code, reason, expected] of [
  ['a status that is not allowed in a frame', 1005, 'x', '1002 framing_violation'],
  ['an undefined status', 5000, '', '1002 framing_violation'],
  ['a reason that is not UTF-8', 1000, '\xff', '1007 invalid_utf8'],
] as const) {
  for (const [side, size] of [
    ['worker', 1],
    ['worker', 200],
    ['gateway', 1],
    ['gateway', 200],
  ] as const) {
    test(`${name} in a close frame of the ${side} is not relayed, ${size} bytes at a time`, async (t) => {
      const raw = await rawStream(t)
      const masked = side === 'worker'
      const good = masked ? up('good') : down('good')
      const bytes = Buffer.concat([good, badClose(code, reason, masked)])
      for (let at = 0; at < bytes.length; at += size) {
        raw[side].write(bytes.subarray(at, at + size))
        await turn()
      }
      t.equal(closeAtEnd(await raw.atGateway.all(), masked ? good : EMPTY, true), expected)
      t.equal(closeAtEnd(await raw.atWorker.all(), masked ? EMPTY : good, false), expected)
      raw.worker.end()
      raw.gateway.end()
      t.equal((await raw.summary()).code, expected.slice(5))
    })
  }
}

/** An unlawful close frame; a mask of zeros leaves its payload as it is. */
function badClose(code: number, reason: string, masked: boolean): Buffer {
  const payload = Buffer.from(`\0\0${reason}`, 'latin1')
  payload.writeUInt16BE(code)
  const head = masked ? [0x88, 0x80 | payload.length, 0, 0, 0, 0] : [0x88, payload.length]
  return Buffer.concat([Buffer.from(head), payload])
}

test('a peer that leaves inside its close frame counts as gone without one', async (t) => {
  const raw = await rawStream(t)
  raw.worker.end(closeFrame({ code: 1000, reason: 'bye', masked: true }).subarray(0, -1))
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('what came before a violation is relayed, nothing after it', async (t) => {
  const raw = await rawStream(t)
  const good = up('good')
  raw.worker.write(Buffer.concat([good, down('bad'), up('never seen')]))
  t.equal(closeAtEnd(await raw.atGateway.all(), good, true), '1002 framing_violation')
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1002 framing_violation')
  raw.worker.end()
  raw.gateway.end()
  t.match(await raw.summary(), { code: 'framing_violation', counts: { messagesUp: 1 } })
})

test('a peer that keeps sending after a violation still gets its close frame', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(down('bad'))
  raw.worker.write(Buffer.alloc(4 * 2 ** 20))
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1002 framing_violation')
  raw.worker.end()
  raw.gateway.end()
  t.match(await raw.summary(), { counts: { bytesUp: 0 } })
})

test('a violation in the head is answered too', async (t) => {
  const raw = await rawStream(t, { workerHead: down('bad') })
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1002 framing_violation')
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1002 framing_violation')
  raw.worker.end()
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'framing_violation')
})
