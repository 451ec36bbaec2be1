/** The first message is read whole, within its limit, and nothing behind it is lost. */

import { test } from 'tap'

import {
  closeFrame,
  pingFrame,
  pongFrame,
  textFrame,
} from '@openclaw-k8s/auth-sidecar/tunnel/frames.ts'
import {
  FirstMessageReader,
  type FirstMessage,
} from '@openclaw-k8s/auth-sidecar/tunnel/first-message.ts'

const masked = true

/** A masked frame with a mask of zeros, so that its payload reads as it is. */
const frame = (first: number, payload: string | Buffer): Buffer => {
  const bytes = Buffer.from(payload)
  const size =
    bytes.length < 126 ? [0x80 | bytes.length] : [0xfe, bytes.length >> 8, bytes.length & 255]
  return Buffer.concat([Buffer.from([first, ...size, 0, 0, 0, 0]), bytes])
}

/** Feeds `bytes` in pieces until an answer is more than `more`. */
function read(bytes: Buffer, size = bytes.length, bytesMax = 65_536): FirstMessage {
  const reader = new FirstMessageReader({ masked, bytesMax })
  const replies: Buffer[] = []
  for (let at = 0; at < bytes.length; at += size) {
    const answer = reader.push(bytes.subarray(at, at + size))
    replies.push(answer.reply)
    if (answer.kind === 'more') continue
    if (answer.kind !== 'message') return { ...answer, reply: Buffer.concat(replies) }
    const rest = Buffer.concat([answer.rest, bytes.subarray(at + size)])
    return { ...answer, rest, reply: Buffer.concat(replies) }
  }
  return { kind: 'more', reply: Buffer.concat(replies) }
}

test('a message is read however it is cut, and the rest is handed back', async (t) => {
  const rest = Buffer.from('whatever follows, were it no frame at all')
  const text = `{"type":"connect.request","p":"${'ü'.repeat(200)}"}`
  const bytes = Buffer.concat([textFrame(text, { masked }), rest])
  for (const size of [1, 2, 3, 7, 50, bytes.length]) {
    t.match(read(bytes, size), { kind: 'message', text, rest, reply: Buffer.alloc(0) })
  }
})

test('fragments are put together, and pings between them answered', async (t) => {
  const bytes = Buffer.concat([
    frame(0x01, 'one '),
    frame(0x89, 'are you there'),
    frame(0x00, ''),
    frame(0x8a, 'nobody asked'),
    frame(0x00, 'two '),
    frame(0x89, ''),
    frame(0x80, 'three'),
  ])
  const reply = Buffer.concat([
    pongFrame(Buffer.from('are you there'), { masked: false }),
    pongFrame(Buffer.alloc(0), { masked: false }),
  ])
  for (const size of [1, 5, bytes.length]) {
    t.match(read(bytes, size), { kind: 'message', text: 'one two three', reply })
  }
})

test('a character cut by a fragment is whole again', async (t) => {
  const euro = Buffer.from('€')
  const bytes = Buffer.concat([frame(0x01, euro.subarray(0, 1)), frame(0x80, euro.subarray(1))])
  t.match(read(bytes), { kind: 'message', text: '€' })
})

test('an incomplete message is waited for', async (t) => {
  const bytes = textFrame('{"type":"connect.request"}', { masked })
  for (let size = 0; size < bytes.length; size += 1) {
    t.equal(read(bytes.subarray(0, size)).kind, 'more')
  }
})

test('a close frame ends the reading and is answered with its status', async (t) => {
  const bytes = closeFrame({ code: 4001, reason: 'changed my mind', masked })
  const reply = closeFrame({ code: 4001, reason: '', masked: false })
  t.match(read(bytes, 3), { kind: 'closed', reply })
  t.match(read(frame(0x88, '')), { kind: 'closed', reply: Buffer.from([0x88, 0]) })
})

const VIOLATIONS: Record<string, readonly [Buffer, string]> = {
  'a binary message': [frame(0x82, 'x'), 'frame_binary'],
  'a fragmented binary message': [frame(0x02, 'x'), 'frame_binary'],
  'an unmasked frame': [textFrame('x', { masked: false }), 'framing_violation'],
  'an RSV bit': [frame(0xc1, 'x'), 'framing_violation'],
  'a reserved opcode': [frame(0x83, 'x'), 'framing_violation'],
  'a continuation of nothing': [frame(0x80, 'x'), 'framing_violation'],
  'a message inside a message': [
    Buffer.concat([frame(0x01, 'x'), frame(0x81, 'y')]),
    'framing_violation',
  ],
  'a length not in its shortest form': [
    Buffer.from([0x81, 0xfe, 0, 3, 0, 0, 0, 0, 1, 2, 3]),
    'framing_violation',
  ],
  'text that is no UTF-8': [frame(0x81, Buffer.from([0xc3, 0x28])), 'framing_violation'],
  'a close frame with one byte': [frame(0x88, 'x'), 'framing_violation'],
}

for (const [name, [bytes, code]] of Object.entries(VIOLATIONS)) {
  test(`${name} is a violation`, async (t) => {
    t.match(read(bytes), { kind: 'violation', code })
    t.match(read(bytes, 1), { kind: 'violation', code })
  })
}

test('the limit is exact, counts headers, and is told by the header alone', async (t) => {
  const bytes = textFrame('x'.repeat(1000), { masked })
  t.equal(read(bytes, 100, bytes.length).kind, 'message')
  const over = { kind: 'violation', code: 'frame_too_large' }
  t.match(read(bytes.subarray(0, 8), 8, bytes.length - 1), over)
})

test('what follows the message does not count towards the limit', async (t) => {
  const bytes = textFrame('x', { masked })
  const answer = read(Buffer.concat([bytes, Buffer.alloc(5000)]), 5007, bytes.length)
  t.match(answer, { kind: 'message', text: 'x' })
})

test('fragments and control frames count towards the limit', async (t) => {
  const over = { kind: 'violation', code: 'frame_too_large' }
  const pings = Array.from({ length: 200 }, () => pingFrame({ masked }))
  t.match(read(Buffer.concat(pings), 10, 1000), over)
  const fragments = Array.from({ length: 200 }, () => frame(0x00, ''))
  t.match(read(Buffer.concat([frame(0x01, ''), ...fragments]), 10, 1000), over)
})

test("a gateway's message is read unmasked, and its pings answered masked", async (t) => {
  const reader = new FirstMessageReader({ masked: false, bytesMax: 1000 })
  const { reply, kind } = reader.push(pingFrame({ masked: false }))
  t.equal(kind, 'more')
  t.equal(reply.length, 6)
  t.equal(reply[1], 0x80)
  t.match(reader.push(textFrame('hello', { masked: false })), { kind: 'message', text: 'hello' })
})

test('a frame of our own takes the shortest length and the mask it is given', async (t) => {
  const mask = Buffer.from([1, 2, 3, 4])
  t.same(textFrame('abcde', { masked, mask }), Buffer.from('8185010203046060606064', 'hex'))
  t.same([...textFrame('x'.repeat(125), { masked: false }).subarray(0, 2)], [0x81, 125])
  t.same([...textFrame('x'.repeat(126), { masked: false }).subarray(0, 4)], [0x81, 126, 0, 126])
  t.same(
    [...textFrame('x'.repeat(65_536), { masked: false }).subarray(0, 10)],
    [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0],
  )
  const close = closeFrame({ code: 1008, reason: 'token_expired', masked: false })
  t.same(close, Buffer.concat([Buffer.from([0x88, 15, 0x03, 0xf0]), Buffer.from('token_expired')]))
  t.throws(() => closeFrame({ code: 1008, reason: 'x'.repeat(124), masked: false }), RangeError)
})

test('two frames of ours towards a gateway have different masks', async (t) => {
  t.notSame(pingFrame({ masked }), pingFrame({ masked }))
})
