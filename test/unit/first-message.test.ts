/** The first message is read whole, within its limit, and nothing behind it is lost. */

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { test } from 'tap'

import { readConnectRequest } from '@openclaw-k8s/auth-sidecar/dialect/connect-request.ts'
import { readConnect } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/frames.ts'
import {
  closeFrame,
  pingFrame,
  pongFrame,
  textFrame,
} from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import {
  FirstMessageReader,
  type FirstMessage,
} from '@openclaw-k8s/auth-sidecar/websocket/first-message.ts'

const masked = true

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** A masked frame with a mask of zeros, so that its payload reads as it is. */
const frame = (first: number, payload: string | Buffer): Buffer => {
  const bytes = Buffer.from(payload)
  const size =
    bytes.length < 126 ? [0x80 | bytes.length] : [0xfe, bytes.length >> 8, bytes.length & 255]
  return Buffer.concat([Buffer.from([first, ...size, 0, 0, 0, 0]), bytes])
}

/** Feeds `bytes` in pieces until an answer is something other than `more`. */
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

test('a message is read however it is split, and the rest is handed back', async (t) => {
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

test('a character split between fragments is put together again', async (t) => {
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

test('a status that is not allowed in a close frame is refused, not sent back', async (t) => {
  for (const code of [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535]) {
    const bytes = closeFrame({ code, reason: 'x', masked })
    const violation = { kind: 'violation', code: 'framing_violation', reply: Buffer.alloc(0) }
    t.match(read(bytes), violation, `${code}`)
    t.match(read(bytes, 1), violation, `${code}, byte by byte`)
    t.equal(read(bytes, 1).reply.length, 0)
  }
  for (const code of [1000, 1003, 1007, 1011, 1012, 1014, 3000, 4999]) {
    t.match(read(closeFrame({ code, reason: 'x', masked })), { kind: 'closed' }, `${code}`)
  }
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
  'text that is no UTF-8': [frame(0x81, Buffer.from([0xc3, 0x28])), 'invalid_utf8'],
  'text that ends inside a character': [
    Buffer.concat([frame(0x01, 'a'), frame(0x80, Buffer.from([0xe2, 0x82]))]),
    'invalid_utf8',
  ],
  'a close frame with one byte': [frame(0x88, 'x'), 'framing_violation'],
  'a close reason that is no UTF-8': [
    frame(0x88, Buffer.from([0x03, 0xe8, 0xc3, 0x28])),
    'invalid_utf8',
  ],
}

for (const [name, [bytes, code]] of Object.entries(VIOLATIONS)) {
  test(`${name} is a violation`, async (t) => {
    t.match(read(bytes), { kind: 'violation', code })
    t.match(read(bytes, 1), { kind: 'violation', code })
  })
}

test('the limit is exact, counts headers, and is applied on the header alone', async (t) => {
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

/** Bytes of memory that `make`'s values hold on to, each. */
const heldBytes = (count: number, make: () => unknown): number => {
  const before = usedBytes()
  const held = Array.from({ length: count }, make)
  return (usedBytes() - before) / held.length
}

/** The first collection finds the garbage; after the second, memory outside the heap is free too. */
const usedBytes = (): number => {
  collect()
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

const UNFINISHED: Readonly<Record<string, (bytesMax: number) => Buffer>> = {
  'fragments of one byte': (bytesMax) =>
    Buffer.concat([frame(0x01, 'x'), ...repeated(bytesMax / 7 - 1, () => frame(0x00, 'x'))]),
  'empty fragments': (bytesMax) =>
    Buffer.concat([frame(0x01, ''), ...repeated(bytesMax / 6 - 1, () => frame(0x00, ''))]),
  'one frame that is not whole': (bytesMax) =>
    frame(0x01, 'x'.repeat(bytesMax - 8)).subarray(0, -1),
  pings: (bytesMax) => Buffer.concat(repeated(bytesMax / 8, () => frame(0x89, 'xx'))),
}

const repeated = (count: number, make: () => Buffer): Buffer[] =>
  Array.from({ length: Math.floor(count) }, make)

for (const [name, build] of Object.entries(UNFINISHED)) {
  test(`a message of ${name} holds at most twice its limit in memory`, async (t) => {
    const bytesMax = 32_768
    const bytes = build(bytesMax)
    for (const size of [bytes.length, 1400, 1]) {
      const held = heldBytes(10, () => {
        const reader = new FirstMessageReader({ masked, bytesMax })
        for (let at = 0; at < bytes.length; at += size) {
          // As from a socket: each chunk has its own memory.
          const { kind } = reader.push(Buffer.from(bytes.subarray(at, at + size)))
          if (kind !== 'more') throw new Error(kind)
        }
        return reader
      })
      t.ok(held <= 2 * bytesMax, `${held} bytes held, in chunks of ${size}`)
    }
  })
}

test('what follows a message is kept without the chunk it came in', async (t) => {
  const chunk = Buffer.concat([frame(0x81, 'hello'), Buffer.from('rest'), Buffer.alloc(0)])
  const answer = new FirstMessageReader({ masked, bytesMax: 1000 }).push(chunk)
  if (answer.kind !== 'message') throw new Error(answer.kind)
  t.equal(answer.rest.toString(), 'rest')
  t.equal(answer.rest.buffer.byteLength, 4, 'nor from a pool')
})

test('a chunk is read and left as it was', async (t) => {
  const bytes = textFrame('hello', { masked })
  const before = Buffer.from(bytes)
  t.match(read(bytes), { kind: 'message', text: 'hello' })
  t.same(bytes, before)
})

test("a gateway's message is read unmasked, and its pings answered masked", async (t) => {
  const reader = new FirstMessageReader({ masked: false, bytesMax: 1000 })
  const { reply, kind } = reader.push(pingFrame({ masked: false }))
  t.equal(kind, 'more')
  t.equal(reply.length, 6)
  t.equal(reply[1], 0x80)
  t.match(reader.push(textFrame('hello', { masked: false })), { kind: 'message', text: 'hello' })
})

test('a frame of ours has the shortest length form and the given mask', async (t) => {
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

test('a first message holds at most 3072 values, whatever they are', async (t) => {
  const isStreamRead = (text: string) => readConnectRequest(text).ok
  const isNodeRead = (text: string) => readConnect(text).ok
  const stream = (more: string) =>
    `{"type":"connect.request","authMode":"k8s-sa","saToken":"a","role":"node","more":${more}}`
  const client = '"client":{"id":"node-host","mode":"node","version":"1","platform":"linux"}'
  const node = (more: string) =>
    `{"type":"req","id":"1","method":"connect","params":{"minProtocol":4,"maxProtocol":4,${client},"computerUse":${more}}}`
  const list = (item: string, count: number) => `[${Array(count).fill(item).join(',')}]`
  const members = (count: number) =>
    `{${Array.from({ length: count }, (_, n) => `"m${n}":0`).join(',')}}`
  for (const [isRead, wrap] of [
    [isStreamRead, stream],
    [isNodeRead, node],
  ] as const) {
    for (const most of [list('0', 3040), list('""', 3040), list('{}', 1500), members(3040)]) {
      t.ok(isRead(wrap(most)), most.slice(0, 20))
    }
    const over = [list('0', 3073), list('""', 3073), list('{}', 1540), members(3073)]
    for (const more of [...over, `${'['.repeat(3073)}${']'.repeat(3073)}`]) {
      t.notOk(isRead(wrap(more)), more.slice(0, 20))
    }
  }
})

test('a list of a node is refused for one bad item, first or last', async (t) => {
  const params = {
    minProtocol: 4,
    maxProtocol: 4,
    client: { id: 'node-host', mode: 'node', version: '1', platform: 'linux' },
  }
  const isRead = (more: object) =>
    readConnect(
      JSON.stringify({ type: 'req', id: '1', method: 'connect', params: { ...params, ...more } }),
    ).ok
  const good = Array<unknown>(20).fill('a')
  for (const name of ['caps', 'commands', 'scopes']) {
    t.ok(isRead({ [name]: good }), name)
    t.ok(isRead({ [name]: [] }), name)
    for (const bad of [0, null, {}, ['a'], 'x'.repeat(257)]) {
      t.notOk(isRead({ [name]: [...good, bad] }), `${name} with ${JSON.stringify(bad)}`)
      t.notOk(isRead({ [name]: [bad, ...good] }), `${name} with ${JSON.stringify(bad)}`)
    }
    t.notOk(isRead({ [name]: { length: 1, 0: 'a' } }), `${name} as an object`)
    t.notOk(isRead({ [name]: 'a' }), `${name} as text`)
  }
  t.ok(isRead({ permissions: {} }))
  t.ok(isRead({ permissions: { camera: true, location: false } }))
  const faults = [{ camera: 1 }, { '': true }, { ['x'.repeat(257)]: true }, [], [true], null, 'a']
  for (const permissions of faults) t.notOk(isRead({ permissions }), JSON.stringify(permissions))
  const withPrototype = JSON.parse('{"permissions":{"__proto__":true}}') as object
  t.notOk(isRead(withPrototype))
})
