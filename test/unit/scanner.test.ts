/** The frame scanner lets lawful bytes through exactly, and stops at the first unlawful header. */

import { test } from 'tap'

import { Duplex } from 'node:stream'
import * as ws from 'ws'

import { Direction } from '@openclaw-k8s/auth-sidecar/tunnel/direction.ts'
import { closeFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { FrameScanner } from '@openclaw-k8s/auth-sidecar/websocket/scanner.ts'

const MAX = 70_000
const EMPTY_MAX = 1000
const MASK = Buffer.from([1, 2, 3, 4])

type Raw = {
  readonly first: number
  readonly length: number
  readonly masked?: boolean
  /** Writes the length in 2 or 8 bytes even where that is not its shortest form. */
  readonly form?: 2 | 8
}

/** A header written byte by byte, so that it can also be wrong. */
function header({ first, length, masked = true, form }: Raw): Buffer {
  const extension = form ?? (length < 126 ? 0 : length < 65_536 ? 2 : 8)
  const bytes = Buffer.alloc(2 + extension)
  bytes[0] = first
  bytes[1] = (masked ? 0x80 : 0) | (extension === 0 ? length : extension === 2 ? 126 : 127)
  if (extension === 2) bytes.writeUInt16BE(length, 2)
  if (extension === 8) bytes.writeBigUInt64BE(BigInt(length), 2)
  return masked ? Buffer.concat([bytes, MASK]) : bytes
}

/** Whether the payload of a close frame is lawful. */
const frame = (raw: Raw, fill = 0x61): Buffer =>
  raw.first === 0x88 && raw.length >= 2
    ? closeOf(1000, 'a'.repeat(raw.length - 2), raw.masked)
    : Buffer.concat([header(raw), Buffer.alloc(raw.length, fill)])

/** A close frame with this status and reason, lawful or not. */
function closeOf(code: number, reason: string | Buffer, masked = true): Buffer {
  const payload = Buffer.concat([Buffer.alloc(2), Buffer.from(reason)])
  payload.writeUInt16BE(code)
  if (masked) for (const at of payload.keys()) payload[at]! ^= MASK[at & 3]!
  return Buffer.concat([header({ first: 0x88, length: payload.length, masked }), payload])
}

/** The same small numbers every time (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

function* cut(bytes: Buffer, size: () => number): Generator<Buffer> {
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + size())
    yield bytes.subarray(at, end)
    at = end
  }
}

const newScanner = (masked = true, messageBytesMax = MAX): FrameScanner =>
  new FrameScanner({ masked, messageBytesMax, emptyFragmentsMax: EMPTY_MAX })

/** Feeds every chunk and returns what was let through, calling `after` with its size each time. */
function relay(
  scanner: FrameScanner,
  chunks: Iterable<Buffer>,
  after: (size: number) => void = () => undefined,
): Buffer {
  const out: Buffer[] = []
  let size = 0
  for (const chunk of chunks) {
    const relayed = scanner.scan(chunk)
    const held = scanner.takeHeld()
    for (const part of [held ?? Buffer.alloc(0), chunk.subarray(0, relayed)]) {
      out.push(part)
      size += part.length
    }
    after(size)
  }
  return Buffer.concat(out)
}

const text = (length: number): Raw => ({ first: 0x81, length })

/** Every lawful kind of frame: all length forms, control frames between fragments, empty ones. */
const SEQUENCE: readonly Raw[] = [
  text(5),
  text(0),
  { first: 0x02, length: 125 },
  { first: 0x89, length: 0 },
  { first: 0x00, length: 126 },
  { first: 0x8a, length: 125 },
  { first: 0x00, length: 0 },
  { first: 0x80, length: 0 },
  { first: 0x82, length: 300 },
  text(1),
  { first: 0x88, length: 2 },
]

const build = (sequence: readonly Raw[], masked: boolean): Buffer =>
  Buffer.concat(sequence.map((raw, at) => frame({ ...raw, masked }, 0x30 + at)))

for (const masked of [true, false]) {
  const side = masked ? 'worker' : 'gateway'
  const bytes = build(SEQUENCE, masked)

  test(`a ${side}'s frames come out as they went in, however they are split`, async (t) => {
    const random = seeded(7)
    const cuts = [
      ...Array.from({ length: 20 }, (_, at) => () => at + 1),
      ...Array.from({ length: 100 }, () => () => 1 + Math.floor(random() * 40)),
      () => bytes.length,
    ]
    for (const size of cuts) {
      const scanner = newScanner(masked)
      t.ok(relay(scanner, cut(bytes, size)).equals(bytes))
      t.match(scanner, { bytes: bytes.length, frames: 11, messages: 5, closeSeen: true })
      t.equal(scanner.violation, undefined)
    }
  })

  test(`what a ${side} has relayed never ends inside a header`, async (t) => {
    const insideHeader = new Set<number>()
    const boundaries = new Set<number>([0])
    let start = 0
    for (const raw of SEQUENCE) {
      const headerEnd = start + header({ ...raw, masked }).length
      for (let at = start + 1; at < headerEnd; at += 1) insideHeader.add(at)
      start = headerEnd + raw.length
      boundaries.add(start)
    }
    for (let size = 1; size <= 20; size += 1) {
      const scanner = newScanner(masked)
      relay(
        scanner,
        cut(bytes, () => size),
        (relayed) => {
          if (insideHeader.has(relayed)) t.fail(`cut by ${size}, ${relayed} bytes end in a header`)
          if (scanner.atBoundary !== boundaries.has(relayed)) t.fail(`boundary at ${relayed}`)
        },
      )
    }
    t.pass()
  })
}

test('a boundary is distinguished from the inside of a payload', async (t) => {
  const scanner = newScanner()
  const bytes = frame(text(5))
  t.ok(scanner.atBoundary)
  scanner.scan(bytes.subarray(0, 6))
  t.notOk(scanner.atBoundary, 'header relayed, payload due')
  scanner.scan(bytes.subarray(6))
  t.ok(scanner.atBoundary)
  scanner.scan(bytes.subarray(0, 3))
  t.ok(scanner.atBoundary, 'half a header is held back')
})

const FRAMING: Record<string, { raw: Buffer; before?: Buffer; gateway?: boolean }> = {
  'an unmasked worker frame': { raw: frame({ ...text(3), masked: false }) },
  'a masked gateway frame': { raw: frame(text(3)), gateway: true },
  ...Object.fromEntries(
    [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf].map((opcode) => [
      `reserved opcode ${opcode}`,
      { raw: frame({ first: 0x80 | opcode, length: 1 }) },
    ]),
  ),
  RSV1: { raw: frame({ first: 0xc1, length: 1 }) },
  RSV2: { raw: frame({ first: 0xa1, length: 1 }) },
  RSV3: { raw: frame({ first: 0x91, length: 1 }) },
  'RSV1 on a control frame': { raw: frame({ first: 0xc9, length: 1 }) },
  'a ping of 126 bytes': { raw: frame({ first: 0x89, length: 126 }) },
  'a ping with a 64-bit length': { raw: frame({ first: 0x89, length: 65_536 }) },
  'a fragmented ping': { raw: frame({ first: 0x09, length: 1 }) },
  'a fragmented close': { raw: frame({ first: 0x08, length: 2 }) },
  'a continuation of nothing': { raw: frame({ first: 0x80, length: 1 }) },
  'a continuation after a whole message': {
    before: frame({ first: 0x81, length: 2 }),
    raw: frame({ first: 0x00, length: 1 }),
  },
  'a new message inside a fragmented one': {
    before: frame({ first: 0x01, length: 2 }),
    raw: frame({ first: 0x81, length: 1 }),
  },
  '125 in 16 bits': { raw: frame({ ...text(125), form: 2 }) },
  '65,535 in 64 bits': { raw: header({ ...text(65_535), form: 8 }) },
  'a length of 2^53': {
    raw: Buffer.concat([Buffer.from('81ff0020000000000000', 'hex'), MASK]),
  },
  'a length with its top bit set': {
    raw: Buffer.concat([Buffer.from('81ff8000000000000001', 'hex'), MASK]),
  },
  'a close frame with one byte': { raw: frame({ first: 0x88, length: 1 }) },
}

for (const [name, { raw, before = Buffer.alloc(0), gateway = false }] of Object.entries(FRAMING)) {
  test(`${name} is a framing violation, and only what came before is relayed`, async (t) => {
    const good = Buffer.concat([frame({ ...text(4), masked: !gateway }), before])
    const bytes = Buffer.concat([good, raw, frame({ ...text(4), masked: !gateway })])
    for (let size = 1; size <= 20; size += 1) {
      const scanner = newScanner(!gateway)
      t.ok(
        relay(
          scanner,
          cut(bytes, () => size),
        ).equals(good),
      )
      t.equal(scanner.violation, 'framing_violation')
      t.ok(scanner.atBoundary && scanner.isDone)
    }
  })
}

test('the shortest forms at their limits pass', async (t) => {
  for (const length of [125, 126, 65_535, 65_536]) {
    const scanner = newScanner()
    const bytes = frame(text(length))
    t.ok(relay(scanner, [bytes]).equals(bytes))
    t.equal(scanner.violation, undefined)
    t.equal(scanner.messages, 1)
  }
})

test('a message of exactly the limit passes, one byte more is refused by its header', async (t) => {
  const exact = newScanner()
  relay(exact, [frame(text(MAX))])
  t.equal(exact.messages, 1)

  const over = newScanner()
  t.equal(relay(over, [header(text(MAX + 1))]).length, 0)
  t.equal(over.violation, 'message_too_big')

  const huge = newScanner()
  relay(huge, [Buffer.concat([Buffer.from('82ff001fffffffffffff', 'hex'), MASK])])
  t.equal(huge.violation, 'message_too_big', '2^53 - 1 is a lawful length, but too much')
})

test('fragments are added up, and the sum restarts with each message', async (t) => {
  const half = MAX / 2
  const whole = [
    frame({ first: 0x02, length: half }),
    frame({ first: 0x89, length: 10 }),
    frame({ first: 0x80, length: half }),
  ]
  const scanner = newScanner()
  relay(scanner, [...whole, ...whole])
  t.equal(scanner.violation, undefined)
  t.equal(scanner.messages, 2)

  const before = [frame({ first: 0x02, length: half }), frame({ first: 0x00, length: half })]
  const over = newScanner()
  const out = relay(over, [...before, frame({ first: 0x80, length: 1 })])
  t.ok(out.equals(Buffer.concat(before)), 'nothing of the frame too many was relayed')
  t.equal(over.violation, 'message_too_big')
})

test('1,000 unfinished empty fragments in a row pass, 1,001 do not', async (t) => {
  const start = frame({ first: 0x01, length: 0 })
  const empty = frame({ first: 0x00, length: 0 })
  const full = frame({ first: 0x00, length: 1 })
  const run = (count: number): Buffer[] => Array.from({ length: count }, () => empty)

  const exact = newScanner()
  relay(exact, [start, ...run(999), full, ...run(1000), frame({ first: 0x80, length: 0 })])
  t.equal(exact.violation, undefined)
  t.equal(exact.messages, 1)

  const over = newScanner()
  t.equal(relay(over, [start, ...run(1000)]).length, 1000 * empty.length)
  t.equal(over.violation, 'empty_fragments_exceeded')
})

test('whole empty messages do not count as fragments', async (t) => {
  const scanner = newScanner()
  relay(scanner, [Buffer.concat(Array.from({ length: 2000 }, () => frame(text(0))))])
  t.equal(scanner.violation, undefined)
  t.equal(scanner.messages, 2000)
})

test('everything after a close frame is discarded, even garbage', async (t) => {
  const close = frame({ first: 0x88, length: 9 })
  for (let size = 1; size <= 20; size += 1) {
    const scanner = newScanner()
    const bytes = Buffer.concat([close, frame(text(3)), Buffer.alloc(50, 0xff)])
    t.ok(
      relay(
        scanner,
        cut(bytes, () => size),
      ).equals(close),
    )
    t.ok(scanner.closeSeen)
    t.equal(scanner.violation, undefined)
    t.equal(scanner.bytes, close.length)
  }
})

test('a close frame is held back until it is whole, and is then let through as it came', async (t) => {
  for (const masked of [true, false]) {
    for (const reason of ['', 'grüße', 'x'.repeat(123)]) {
      const close = closeOf(4001, reason, masked)
      for (let at = 1; at < close.length; at += 1) {
        const scanner = newScanner(masked)
        const before = frame({ ...text(3), masked })
        t.ok(relay(scanner, [before, close.subarray(0, at)]).equals(before))
        t.notOk(scanner.closeSeen)
        t.ok(scanner.atBoundary, 'another close can go in')
        t.ok(relay(scanner, [close.subarray(at)]).equals(close))
        t.ok(scanner.closeSeen)
        t.strictSame([scanner.frames, scanner.messages], [2, 1])
        t.equal(scanner.bytes, before.length + close.length)
      }
    }
  }
})

test('a stopped scanner drops a close frame it has only in part', async (t) => {
  const scanner = newScanner()
  const close = closeOf(1000, 'bye')
  relay(scanner, [close.subarray(0, -1)])
  scanner.stop()
  t.ok(scanner.isDone)
  t.equal(relay(scanner, [close.subarray(-1)]).length, 0)
  t.notOk(scanner.closeSeen)
})

/** The parser of `ws`, which its types leave out. */
type Receiver = Duplex & { on(event: 'conclude', listener: (code: number) => void): Receiver }
const { Receiver: WsReceiver } = ws as unknown as {
  Receiver: new (options: { isServer: boolean; allowSynchronousEvents: boolean }) => Receiver
}

/** Whether `ws` takes a masked close frame. */
function receiveClose(close: Buffer): boolean {
  const receiver = new WsReceiver({ isServer: true, allowSynchronousEvents: true })
  let isTaken = false
  receiver.on('conclude', () => (isTaken = true))
  receiver.on('error', () => undefined)
  receiver.write(close)
  return isTaken
}

/** Every status up to the end of the defined ranges, and some beyond. */
const STATUSES = [...Array.from({ length: 5100 }, (_, code) => code), 32_768, 65_535]
const isLawfulStatus = (code: number): boolean =>
  (code >= 3000 && code <= 4999) ||
  [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014].includes(code)

test('only a status that is allowed in a close frame is let through', async (t) => {
  for (const masked of [true, false]) {
    const wrong = STATUSES.filter((code) => {
      const scanner = newScanner(masked)
      const close = closeOf(code, 'why', masked)
      const relayed = relay(scanner, [close])
      return isLawfulStatus(code)
        ? !relayed.equals(close) || scanner.violation !== undefined
        : relayed.length > 0 || scanner.violation !== 'framing_violation' || scanner.closeSeen
    })
    t.strictSame(wrong, [])
  }
  const differing = STATUSES.filter(
    (code) => receiveClose(closeOf(code, '')) !== isLawfulStatus(code),
  )
  t.strictSame(differing, [], 'ws says the same')
})

const NO_UTF8 = ['c328', 'ff', 'c0a2', 'eda080', 'f4908080', '61e282'].map((hex) =>
  Buffer.from(hex, 'hex'),
)

test('a close reason that is not UTF-8 is let through neither whole nor in part', async (t) => {
  for (const masked of [true, false]) {
    for (const reason of NO_UTF8) {
      const close = closeOf(1000, reason, masked)
      for (let size = 1; size <= close.length; size += 1) {
        const scanner = newScanner(masked)
        const out = relay(
          scanner,
          cut(close, () => size),
        )
        t.equal(out.length, 0)
        t.strictSame([scanner.violation, scanner.closeSeen], ['invalid_utf8', false])
        t.ok(scanner.atBoundary)
      }
    }
  }
  t.equal(receiveClose(closeOf(1000, Buffer.from('c328', 'hex'))), false, 'ws says the same')
})

test('a close frame with an unlawful header is refused before its payload comes', async (t) => {
  for (const raw of [
    { first: 0x88, length: 9, masked: false },
    { first: 0xc8, length: 9 },
    { first: 0x08, length: 9 },
    { first: 0x88, length: 126 },
    { first: 0x88, length: 1 },
  ]) {
    const scanner = newScanner()
    t.equal(relay(scanner, [header(raw)]).length, 0)
    t.equal(scanner.violation, 'framing_violation', JSON.stringify(raw))
  }
})

test('a stopped scanner finishes the frame under way and no more', async (t) => {
  const [first, second] = [frame(text(10)), frame(text(10))]
  const scanner = newScanner()
  const out = [relay(scanner, [first.subarray(0, 9)])]
  scanner.stop()
  t.notOk(scanner.isDone)
  out.push(relay(scanner, [Buffer.concat([first.subarray(9), second])]))
  t.ok(Buffer.concat(out).equals(first))
  t.ok(scanner.isDone)
})

test('a stopped scanner drops a header it has only in part', async (t) => {
  const [first, second] = [frame(text(10)), frame(text(10))]
  const scanner = newScanner()
  relay(scanner, [first, second.subarray(0, 3)])
  scanner.stop()
  t.ok(scanner.isDone)
  t.equal(relay(scanner, [second.subarray(3)]).length, 0)
})

test('held bytes survive the header buffer being used again', async (t) => {
  const bytes = Buffer.concat([frame(text(0)), frame({ first: 0x82, length: 0 }), frame(text(1))])
  const scanner = newScanner()
  scanner.scan(bytes.subarray(0, 3))
  scanner.scan(bytes.subarray(3, 14))
  const held = scanner.takeHeld()
  scanner.scan(bytes.subarray(14))
  t.ok(held?.equals(bytes.subarray(0, 3)))
})

for (const masked of [true, false]) {
  const side = masked ? 'gateway' : 'worker'
  test(`a close can be put in after any byte, and the ${side} reads it`, async (t) => {
    const sequence = SEQUENCE.slice(0, -1)
    const bytes = build(sequence, masked)
    const frameEnds = sequence.map((_, at) => build(sequence.slice(0, at + 1), masked).length)
    for (let at = 0; at <= bytes.length; at += 1) {
      const out: Buffer[] = []
      const sink = new Duplex({
        read() {},
        write(chunk: Buffer, _encoding, done) {
          out.push(chunk)
          done()
        },
      })
      const source = new Duplex({ read() {}, write() {} })
      const direction = new Direction({
        source,
        sink,
        masked,
        messageBytesMax: MAX,
        emptyFragmentsMax: EMPTY_MAX,
        onViolation: (code) => t.fail(code),
        onClosePassed: () => t.fail('no close frame was sent'),
      })
      direction.start(bytes.subarray(0, at))
      direction.close(closeFrame({ code: 1008, reason: 'why', masked }))
      source.emit('data', bytes.subarray(at))

      const receiver = new WsReceiver({ isServer: masked, allowSynchronousEvents: true })
      let messages = 0
      let closed: number | undefined
      receiver.on('message', () => (messages += 1))
      receiver.on('conclude', (code) => (closed = code))
      receiver.on('error', (error) => t.fail(error))
      receiver.write(Buffer.concat(out))
      const relayed = Buffer.concat(out).length - (masked ? 4 : 0) - 2 - 2 - 'why'.length
      // A frame whose whole header had come was begun, and had to be finished.
      const begun = frameEnds.filter((end, index) => at >= end - (sequence[index]?.length ?? 0))
      if (closed !== 1008) t.fail(`after ${at} bytes: closed with ${closed}`)
      if (relayed !== (begun.at(-1) ?? 0)) t.fail(`after ${at} bytes: relayed ${relayed}`)
      if (messages !== direction.scanner.messages) t.fail(`after ${at} bytes: ${messages} messages`)
    }
    t.pass()
  })
}
