/** A spliced stream is byte-exact, bounded, and always ends with a true close code at both ends. */

import { test, type Test } from 'tap'

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingMessage } from 'node:http'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { WebSocket, WebSocketServer } from 'ws'

import { dialGateway } from '@openclaw-k8s/auth-sidecar/tunnel/dial.ts'
import { closeFrame, pingFrame, textFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { GatewayReader } from '@openclaw-k8s/auth-sidecar/tunnel/gateway-reader.ts'
import { buildUpstreamRequest } from '@openclaw-k8s/auth-sidecar/tunnel/headers.ts'
import {
  splice,
  type SpliceOptions,
  type Stream,
  type Summary,
} from '@openclaw-k8s/auth-sidecar/tunnel/splice.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const MESSAGE_MAX = 26_214_400
const EMPTY = Buffer.alloc(0)

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** Two ends of one TCP connection: the peer's and ours. */
async function socketPair(t: Test): Promise<{ peer: Socket; ours: Socket }> {
  const server = createServer({ allowHalfOpen: true, noDelay: true })
  const port = await listen(server)
  const accepted = once(server, 'connection')
  const peer = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  const [ours] = (await accepted) as [Socket]
  server.close()
  peer.on('error', () => undefined)
  t.teardown(() => {
    peer.destroy()
    ours.destroy()
  })
  return { peer, ours }
}

const sizeOf = (chunks: readonly Buffer[]): number =>
  chunks.reduce((size, chunk) => size + chunk.length, 0)

/** Keeps what a peer is sent. */
function collect(peer: Socket) {
  const chunks: Buffer[] = []
  let waiting: (() => void) | undefined
  peer.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    waiting?.()
  })
  return {
    bytes: () => Buffer.concat(chunks),
    async has(size: number): Promise<Buffer> {
      while (sizeOf(chunks) < size) {
        await new Promise<void>((resolve) => (waiting = resolve))
      }
      return Buffer.concat(chunks)
    },
    /** Everything up to the end of the connection's half. */
    async all(): Promise<Buffer> {
      if (!peer.readableEnded) await once(peer, 'end')
      return Buffer.concat(chunks)
    },
  }
}

/** What the close frame at the end of `bytes` says; ours towards a gateway are masked. */
function closeAtEnd(bytes: Buffer, before: Buffer, masked: boolean) {
  if (!bytes.subarray(0, before.length).equals(before)) return 'other bytes came before'
  const frame = bytes.subarray(before.length)
  if (frame.length === 0) return 'no close frame'
  const isWhole = frame[0] === 0x88 && frame.length === ((frame[1] ?? 0) & 0x7f) + (masked ? 6 : 2)
  if (!isWhole || (frame[1] ?? 0) >= 0x80 !== masked) return 'something else than a close frame'
  const mask = masked ? frame.subarray(2, 6) : Buffer.alloc(4)
  const body = frame.subarray(masked ? 6 : 2).map((byte, at) => byte ^ (mask[at & 3] ?? 0))
  const payload = Buffer.from(body)
  return `${payload.readUInt16BE(0)} ${payload.toString('utf8', 2)}`
}

/** A stream between two raw peers. */
async function rawStream(t: Test, changes: Partial<SpliceOptions> = {}) {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const clock = new FakeClock()
  const ended = Promise.withResolvers<Summary>()
  const summaries: Summary[] = []
  const sockets = [worker.ours, gateway.ours]
  const events = ['data', 'drain', 'end', 'close', 'error']
  const countListeners = (): number[] =>
    sockets.flatMap((socket) => events.map((event) => socket.listenerCount(event)))
  const listenersBefore = countListeners()
  const stream = splice({
    worker: worker.ours,
    workerHead: EMPTY,
    gateway: gateway.ours,
    gatewayHead: EMPTY,
    messageBytesMax: MESSAGE_MAX,
    emptyFragmentsMax: 1000,
    clock,
    onClose(summary) {
      summaries.push(summary)
      ended.resolve(summary)
    },
    ...changes,
  })
  return {
    stream,
    clock,
    worker: worker.peer,
    gateway: gateway.peer,
    workerSide: worker.ours,
    gatewaySide: gateway.ours,
    atWorker: collect(worker.peer),
    atGateway: collect(gateway.peer),
    /** The summary, once nothing of the stream is left. */
    async summary(): Promise<Summary> {
      const summary = await ended.promise
      await turn()
      t.equal(summaries.length, 1, 'closed once')
      t.equal(clock.pending, 0, 'no timer is left')
      // The sockets drop listeners of their own when they are destroyed, and never gain any.
      countListeners().forEach((count, at) => {
        if (count > (listenersBefore[at] ?? 0)) t.fail(`listener ${at} is left`)
      })
      return summary
    },
  }
}

/** A real worker and a real gateway of `ws`, with the tunnel in between. */
async function realStream(t: Test, changes: Partial<SpliceOptions> = {}) {
  const gateways = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: 2 * MESSAGE_MAX })
  await once(gateways, 'listening')
  const gatewayUrl = new URL(`ws://127.0.0.1:${(gateways.address() as AddressInfo).port}/`)
  const summary = Promise.withResolvers<Summary>()
  const opened = Promise.withResolvers<Stream>()
  const edge = createHttpServer()
  const open = async (request: IncomingMessage, worker: Duplex, workerHead: Buffer) => {
    const key = String(request.headers['sec-websocket-key'])
    const clock = new FakeClock()
    const { socket, head } = await dialGateway({
      url: gatewayUrl,
      request: buildUpstreamRequest({
        gatewayUrl,
        workerAddress: '10.0.0.5',
        workerProto: 'http',
        forwardedHost: '10.0.0.1:18443',
        identity: {
          namespace: 'openclaw',
          serviceAccount: 'openclaw-worker',
          podName: 'pod',
          podUid: 'uid',
          nodeName: undefined,
          credentialId: undefined,
          expiresAt: 0,
        },
        role: 'node',
        assertion: 'a.b.c',
        key: randomBytes(16).toString('base64'),
      }),
      subprotocols: [],
      timeoutMs: 5000,
      clock,
    })
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    worker.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${accept.digest('base64')}\r\n\r\n`,
    )
    const stream = splice({
      worker,
      workerHead,
      gateway: socket,
      gatewayHead: head,
      messageBytesMax: MESSAGE_MAX,
      emptyFragmentsMax: 1000,
      clock,
      onClose: summary.resolve,
      ...changes,
    })
    opened.resolve(stream)
  }
  edge.on('upgrade', (request, worker, head) => void open(request, worker, head))
  const connected = once(gateways, 'connection')
  const worker = new WebSocket(`ws://127.0.0.1:${await listen(edge)}/`, {
    maxPayload: 2 * MESSAGE_MAX,
  })
  t.teardown(() => {
    edge.close()
    gateways.close()
  })
  const [[gateway]] = (await Promise.all([connected, once(worker, 'open')])) as [[WebSocket], []]
  for (const end of [worker, gateway]) end.on('error', () => undefined)
  const stream = await opened.promise
  return { worker, gateway, stream, summary: summary.promise }
}

async function closeOf(end: WebSocket): Promise<string> {
  const [code, reason] = (await once(end, 'close')) as [number, Buffer]
  return `${code} ${reason.toString()}`
}

function rawSocketOf(end: WebSocket): Socket {
  const { _socket: socket } = end as unknown as { _socket: Socket }
  return socket
}

const up = (text: string): Buffer => textFrame(text, { masked: true })
const down = (text: string): Buffer => textFrame(text, { masked: false })

// Relaying

test('messages of real peers pass both ways and are counted', async (t) => {
  const { worker, gateway, stream, summary } = await realStream(t)
  const echoed: string[] = []
  gateway.on('message', (data: Buffer) => gateway.send(`echo ${data.toString()}`))
  worker.on('message', (data: Buffer) => echoed.push(data.toString()))
  for (const text of ['', 'a', 'b'.repeat(200), 'c'.repeat(70_000)]) worker.send(text)
  while (echoed.length < 4) await once(worker, 'message')
  t.same(
    echoed.map((text) => text.length),
    [5, 6, 205, 70_005],
  )
  const payload = 70_201
  t.same(stream.counts, {
    bytesUp: payload + 6 + 6 + 8 + 14,
    bytesDown: payload + 20 + 2 + 2 + 4 + 10,
    messagesUp: 4,
    messagesDown: 4,
    framesUp: 4,
    framesDown: 4,
  })
  worker.close(1000, 'done')
  t.same(await Promise.all([closeOf(worker), closeOf(gateway)]), ['1000 done', '1000 done'])
  t.match(await summary, { code: 'completed', counts: { messagesUp: 4, framesUp: 5 } })
})

test('a close of the gateway reaches the worker as it is', async (t) => {
  const { worker, gateway, summary } = await realStream(t)
  gateway.close(4001, 'go')
  t.same(await Promise.all([closeOf(worker), closeOf(gateway)]), ['4001 go', '4001 go'])
  t.equal((await summary).code, 'completed')
})

test('heads come first and in order, also where they end inside a header', async (t) => {
  const sent = Buffer.concat([up('first'), up('second'), up('third')])
  const answer = Buffer.concat([down('hello'), down('world')])
  for (const at of [1, 5, 11, 12, 14, 20]) {
    const raw = await rawStream(t, {
      workerHead: sent.subarray(0, at),
      gatewayHead: answer.subarray(0, at / 2),
    })
    raw.worker.write(sent.subarray(at))
    raw.gateway.write(answer.subarray(at / 2))
    t.ok((await raw.atGateway.has(sent.length)).equals(sent))
    t.ok((await raw.atWorker.has(answer.length)).equals(answer))
    raw.stream.destroy()
    await raw.summary()
  }
})

test('sockets that were paused on purpose flow again', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  worker.ours.pause()
  gateway.ours.pause()
  const [sent, answer] = [up('early'), down('early')]
  worker.peer.write(sent)
  gateway.peer.write(answer)
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  t.ok((await collect(gateway.peer).has(sent.length)).equals(sent))
  t.ok((await collect(worker.peer).has(answer.length)).equals(answer))
  raw.stream.destroy()
})

/** Frames of many sizes, so that chunks of the kernel end anywhere in them. */
function manyFrames(bytes: number, masked: boolean): Buffer {
  const frames: Buffer[] = []
  for (let total = 0, at = 0; total < bytes; at += 1) {
    const size = (at * 7919) % 5 === 0 ? at % 3 : 1 + ((at * 104_729) % 90_000)
    const frame = textFrame(String.fromCharCode(97 + (at % 26)).repeat(size), { masked })
    frames.push(frame)
    total += frame.length
  }
  return Buffer.concat(frames)
}

for (const side of ['worker', 'gateway'] as const) {
  test(`a ${side} that reads slowly loses nothing and costs bounded memory`, async (t) => {
    const bytes = manyFrames(24 * 2 ** 20, side === 'gateway')
    const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
    const ends = { worker: worker.ours, gateway: gateway.ours }
    const [sink, source] =
      side === 'worker' ? [worker.ours, gateway.ours] : [gateway.ours, worker.ours]
    const [reader, writer] =
      side === 'worker' ? [worker.peer, gateway.peer] : [gateway.peer, worker.peer]
    const backedUp = once(source, 'pause')
    let queuedMax = 0
    source.on('data', () => (queuedMax = Math.max(queuedMax, sink.writableLength)))
    const { stream } = await rawStream(t, ends)
    writer.end(
      Buffer.concat([bytes, closeFrame({ code: 1000, reason: '', masked: side === 'gateway' })]),
    )
    await backedUp
    queuedMax = Math.max(queuedMax, sink.writableLength)
    t.ok(sink.writableNeedDrain)
    t.ok(source.isPaused())

    const hash = createHash('sha256')
    let read = 0
    // Small sips, a turn of the loop between them.
    while (read < bytes.length) {
      const chunk = reader.read() as Buffer | null
      if (chunk === null) {
        await once(reader, 'readable')
        continue
      }
      const part = chunk.subarray(0, bytes.length - read)
      hash.update(part)
      read += part.length
      await turn()
    }
    t.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'))
    const bound = sink.writableHighWaterMark + source.readableHighWaterMark + 65_536 + 14
    t.ok(queuedMax <= bound, `${queuedMax} B were queued`)
    stream.destroy()
  })
}

test('a worker that reads slowly gets whole what a gateway reader read', async (t) => {
  const worker = await socketPair(t)
  const reader = new GatewayReader()
  const server = createServer({ allowHalfOpen: true })
  const port = await listen(server)
  const accepted = once(server, 'connection')
  const { onread } = reader
  const gateway = connect({ port, host: '127.0.0.1', allowHalfOpen: true, onread })
  reader.attach(gateway)
  const [peer] = (await accepted) as [Socket]
  server.close()
  t.teardown(() => {
    gateway.destroy()
    peer.destroy()
  })
  const bytes = manyFrames(48 * 2 ** 20, false)
  const { stream } = await rawStream(t, { worker: worker.ours, gateway, gatewayReader: reader })
  peer.write(bytes)
  const hash = createHash('sha256')
  let read = 0
  for (let mouthfuls = 0; read < bytes.length; mouthfuls += 1) {
    // At first it takes nothing until all that can be queued is queued.
    const isStalling = () => mouthfuls < 3 && !worker.ours.writableNeedDrain
    while (isStalling()) await turn()
    for (let taken = 0; taken < 6 * 2 ** 20 && read < bytes.length;) {
      const chunk = worker.peer.read() as Buffer | null
      if (chunk === null) {
        await once(worker.peer, 'readable')
        continue
      }
      hash.update(chunk)
      read += chunk.length
      taken += chunk.length
    }
  }
  t.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'))
  stream.destroy()
})

test('what was read gives its memory back when it is written, and not before', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const read: Buffer[] = []
  worker.ours.on('data', (chunk: Buffer) => read.push(chunk))
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  const atGateway = collect(gateway.peer)
  const small = up('x'.repeat(1000))
  worker.peer.write(small)
  await atGateway.has(small.length)
  t.same(
    read.map(({ length }) => length),
    [0],
    'what the kernel took at once',
  )

  const large = manyFrames(24 * 2 ** 20, true)
  const backedUp = once(worker.ours, 'pause')
  gateway.peer.pause()
  worker.peer.write(large)
  await backedUp
  const last = read.at(-1)
  t.equal(last?.length, gateway.ours.writableLength, 'what a slow reader has yet to take')
  const drained = once(gateway.ours, 'drain')
  gateway.peer.resume()
  await drained
  t.equal(last?.length, 0, 'what it took')
  const expected = Buffer.concat([small, large])
  t.ok((await atGateway.has(expected.length)).equals(expected))
  raw.stream.destroy()
})

test('a chunk that shares its memory with others keeps it', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  const memory = Buffer.alloc(64, 0xff)
  const frame = up('part')
  frame.copy(memory)
  worker.ours.push(memory.subarray(0, frame.length))
  t.ok((await collect(gateway.peer).has(frame.length)).equals(frame))
  t.equal(memory.length, 64)
  t.equal(memory[63], 0xff)
  raw.stream.destroy()
})

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

test('a gateway is held to the message size as well', async (t) => {
  const { worker, gateway, summary } = await realStream(t, { messageBytesMax: 1000 })
  const closes = Promise.all([closeOf(worker), closeOf(gateway)])
  gateway.send('x'.repeat(1001))
  t.same(await closes, ['1009 message_too_big', '1009 message_too_big'])
  t.equal((await summary).code, 'message_too_big')
})

// Violations

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
  ['a status that must not stand in a frame', 1005, 'x', '1002 framing_violation'],
  ['a status of nobody', 5000, '', '1002 framing_violation'],
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

/** A close frame that says what none may; a mask of zeros leaves its payload as it is. */
function badClose(code: number, reason: string, masked: boolean): Buffer {
  const payload = Buffer.from(`\0\0${reason}`, 'latin1')
  payload.writeUInt16BE(code)
  const head = masked ? [0x88, 0x80 | payload.length, 0, 0, 0, 0] : [0x88, payload.length]
  return Buffer.concat([Buffer.from(head), payload])
}

test('a peer that leaves inside its close frame has left without one', async (t) => {
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

test('a violator that goes on sending still gets its close frame', async (t) => {
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

// Closing from outside

test('a revocation is 1008 at both ends', async (t) => {
  const { worker, gateway, stream, summary } = await realStream(t)
  const closes = Promise.all([closeOf(worker), closeOf(gateway)])
  t.notOk(stream.isClosing)
  stream.close('identity_not_allowed')
  t.ok(stream.isClosing)
  t.same(await closes, ['1008 identity_not_allowed', '1008 identity_not_allowed'])
  t.equal((await summary).code, 'identity_not_allowed')
})

test('the first code wins, and a second close does nothing', async (t) => {
  const raw = await rawStream(t)
  raw.stream.close('draining')
  raw.stream.close('identity_not_allowed')
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1012 draining')
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1012 draining')
  raw.worker.end()
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'draining')
  raw.stream.close('token_expired')
  raw.stream.destroy()
})

test('a close inside frames lets both frames finish, and no more', async (t) => {
  const raw = await rawStream(t)
  const [sent, answer] = [up('x'.repeat(1000)), down('y'.repeat(1000))]
  raw.worker.write(sent.subarray(0, 500))
  raw.gateway.write(answer.subarray(0, 500))
  await Promise.all([raw.atGateway.has(500), raw.atWorker.has(500)])
  raw.stream.close('identity_not_allowed')
  raw.worker.write(Buffer.concat([sent.subarray(500), up('revoked')]))
  raw.gateway.write(Buffer.concat([answer.subarray(500), down('revoked')]))
  const [atGateway, atWorker] = await Promise.all([raw.atGateway.all(), raw.atWorker.all()])
  t.equal(closeAtEnd(atGateway, sent, true), '1008 identity_not_allowed')
  t.equal(closeAtEnd(atWorker, answer, false), '1008 identity_not_allowed')
  raw.worker.end()
  raw.gateway.end()
  t.match(await raw.summary(), { counts: { bytesUp: sent.length, messagesUp: 1 } })
})

test('a frame that never ends is cut at the deadline, the other side closed cleanly', async (t) => {
  const raw = await rawStream(t)
  const sent = up('x'.repeat(1000))
  raw.worker.write(sent.subarray(0, 500))
  await raw.atGateway.has(500)
  raw.stream.close('identity_not_allowed')
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1008 identity_not_allowed')
  raw.clock.advance(4999)
  t.notOk(raw.gatewaySide.destroyed)
  raw.clock.advance(1)
  t.equal((await raw.summary()).code, 'identity_not_allowed')
  t.equal(raw.atGateway.bytes().length, 500)
})

test('a close of ours does not fall on a close of theirs', async (t) => {
  const raw = await rawStream(t)
  const bye = closeFrame({ code: 1000, reason: 'bye', masked: true })
  raw.worker.write(bye)
  await raw.atGateway.has(bye.length)
  raw.stream.close('draining')
  t.ok((await raw.atGateway.all()).equals(bye))
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1012 draining')
  raw.worker.end()
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'draining')
})

test('a peer that neither reads nor leaves is dropped at the deadline', async (t) => {
  const raw = await rawStream(t, { closeTimeoutMs: 100 })
  raw.stream.close('draining')
  raw.clock.advance(100)
  t.equal((await raw.summary()).code, 'draining')
})

test('destroy drops both sockets at once', async (t) => {
  const raw = await rawStream(t)
  raw.stream.destroy()
  t.equal((await raw.summary()).code, 'draining')
  t.ok(raw.workerSide.destroyed && raw.gatewaySide.destroyed)
  raw.stream.close('token_expired')
  t.equal(raw.clock.pending, 0, 'a stream that is over arms nothing')
})

test('a close waits for the frame a slow reader still takes, and comes right after it', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const backedUp = once(gateway.ours, 'pause')
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  const long = down('x'.repeat(20 * 2 ** 20))
  gateway.peer.write(Buffer.concat([long, down('revoked')]))
  await backedUp
  raw.stream.close('identity_not_allowed')
  const bytes = await collect(worker.peer).all()
  t.equal(closeAtEnd(bytes, long, false), '1008 identity_not_allowed')
  worker.peer.end()
  gateway.peer.end()
  gateway.peer.resume()
  t.match(await raw.summary(), { code: 'identity_not_allowed', counts: { messagesDown: 1 } })
})

// Ends

test('a handshake of the peers ends the worker by us and the gateway by itself', async (t) => {
  const raw = await rawStream(t)
  const bye = closeFrame({ code: 1000, reason: 'bye', masked: true })
  const reply = closeFrame({ code: 1000, reason: 'bye', masked: false })
  raw.worker.write(bye)
  await raw.atGateway.has(bye.length)
  raw.gateway.write(reply)
  t.ok((await raw.atWorker.all()).equals(reply))
  t.notOk(raw.gatewaySide.writableEnded)
  raw.gateway.end()
  raw.worker.end()
  t.ok((await raw.atGateway.all()).equals(bye))
  t.equal((await raw.summary()).code, 'completed')
})

test('after a close handshake nobody is waited for beyond the deadline', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(closeFrame({ code: 1000, reason: '', masked: true }))
  raw.gateway.write(closeFrame({ code: 1000, reason: '', masked: false }))
  await raw.atWorker.all()
  t.ok(raw.stream.isClosing)
  raw.stream.close('token_expired')
  raw.clock.advance(5000)
  t.equal((await raw.summary()).code, 'completed', 'a code that came too late does not count')
})

test('a gateway that hangs up on a close frame completes the stream', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(closeFrame({ code: 1000, reason: '', masked: true }))
  await raw.atGateway.has(8)
  raw.gateway.end()
  t.equal((await raw.atWorker.all()).length, 0)
  raw.worker.end()
  t.equal((await raw.summary()).code, 'completed')
})

test('a worker that ends without a word is 1001 at the gateway', async (t) => {
  const raw = await rawStream(t)
  raw.worker.end(up('last words').subarray(0, 3))
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker whose connection is reset is 1001 at the gateway', async (t) => {
  const raw = await rawStream(t)
  raw.worker.resetAndDestroy()
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker that ends inside a frame leaves the gateway a bare end', async (t) => {
  const raw = await rawStream(t)
  const sent = up('x'.repeat(100)).subarray(0, 50)
  raw.worker.end(sent)
  t.ok((await raw.atGateway.all()).equals(sent))
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker that ends is let go at once, were the gateway inside a frame', async (t) => {
  const raw = await rawStream(t)
  const answer = down('y'.repeat(1000))
  raw.gateway.write(answer.subarray(0, 500))
  await raw.atWorker.has(500)
  raw.worker.end()
  t.equal((await raw.atWorker.all()).length, 500)
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end(answer.subarray(500))
  t.match(await raw.summary(), { code: 'worker_gone', counts: { bytesDown: 500, framesDown: 0 } })
})

for (const [how, leave] of [
  ['ends without a word', (socket: Socket) => void socket.end()],
  ['is reset', (socket: Socket) => void socket.resetAndDestroy()],
] as const) {
  test(`a gateway that ${how} is 1013 at the worker`, async (t) => {
    const raw = await rawStream(t)
    leave(raw.gateway)
    t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1013 gateway_gone')
    raw.worker.end()
    t.equal((await raw.summary()).code, 'gateway_gone')
  })
}

test('what a gateway said before it ended reaches the worker first', async (t) => {
  const raw = await rawStream(t)
  raw.gateway.end(down('last words'))
  t.equal(closeAtEnd(await raw.atWorker.all(), down('last words'), false), '1013 gateway_gone')
  raw.worker.end()
  t.match(await raw.summary(), { code: 'gateway_gone', counts: { messagesDown: 1 } })
})

test('a worker is kept for the delay when its gateway goes', async (t) => {
  const raw = await rawStream(t, { gatewayGoneDelayMs: () => 700 })
  raw.gateway.end()
  await raw.atGateway.all()
  t.ok(raw.stream.isClosing)
  raw.worker.write(up('nobody listens'))
  raw.clock.advance(699)
  t.notOk(raw.workerSide.writableEnded)
  raw.clock.advance(1)
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1013 gateway_gone')
  raw.worker.end()
  t.equal((await raw.summary()).code, 'gateway_gone')
})

test('a close during the delay does not wait for it, and the first code stays', async (t) => {
  const raw = await rawStream(t, { gatewayGoneDelayMs: () => 700 })
  raw.gateway.end()
  await raw.atGateway.all()
  raw.stream.close('draining')
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1013 gateway_gone')
  raw.worker.end()
  t.equal((await raw.summary()).code, 'gateway_gone')
})

test('a worker that leaves during the delay ends the stream', async (t) => {
  const raw = await rawStream(t, { gatewayGoneDelayMs: () => 700 })
  raw.gateway.end()
  await raw.atGateway.all()
  raw.worker.end()
  t.equal((await raw.summary()).code, 'gateway_gone')
})

test('a worker that was gone before the splice is noticed', async (t) => {
  const { ours } = await socketPair(t)
  ours.destroy()
  await once(ours, 'close')
  const raw = await rawStream(t, { worker: ours })
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker that vanishes while the gateway is held back frees the gateway', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const backedUp = once(gateway.ours, 'pause')
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  gateway.peer.write(manyFrames(24 * 2 ** 20, false))
  await backedUp
  const atGateway = collect(gateway.peer)
  worker.peer.resetAndDestroy()
  t.equal(closeAtEnd(await atGateway.all(), EMPTY, true), '1001 worker_gone')
  gateway.peer.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker that vanishes after its close frame frees a gateway held back', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const backedUp = once(gateway.ours, 'pause')
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  const atGateway = collect(gateway.peer)
  gateway.peer.end(manyFrames(24 * 2 ** 20, false))
  await backedUp
  const bye = closeFrame({ code: 1000, reason: '', masked: true })
  worker.peer.write(bye)
  await atGateway.has(bye.length)
  worker.peer.resetAndDestroy()
  t.ok((await atGateway.all()).equals(bye))
  t.equal((await raw.summary()).code, 'completed')
})

// Heartbeat

const PING = pingFrame({ masked: false })

test('silent sides are pinged, and a stream silent for two pings is closed', async (t) => {
  const raw = await rawStream(t)
  raw.stream.ping()
  raw.stream.ping()
  t.ok((await raw.atWorker.has(4)).equals(Buffer.concat([PING, PING])))
  const pings = await raw.atGateway.has(12)
  t.same([pings[0], pings[1], pings[6], pings[7]], [0x89, 0x80, 0x89, 0x80])
  t.notOk(raw.stream.isClosing)
  raw.stream.ping()
  t.equal(
    closeAtEnd(await raw.atWorker.all(), Buffer.concat([PING, PING]), false),
    '1001 idle_timeout',
  )
  t.equal(closeAtEnd(await raw.atGateway.all(), pings, true), '1001 idle_timeout')
  raw.worker.end()
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'idle_timeout')
})

test('real peers answer the pings and stay', async (t) => {
  const { worker, gateway, stream, summary } = await realStream(t)
  for (let period = 0; period < 6; period += 1) {
    // The pong of each is relayed to the other, so that both have been heard.
    const answered = Promise.all([once(worker, 'pong'), once(gateway, 'pong')])
    stream.ping()
    await answered
    stream.ping()
  }
  t.notOk(stream.isClosing)
  worker.close()
  t.equal((await summary).code, 'completed')
})

test('a side that talks is not pinged', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(up('here'))
  await raw.atGateway.has(10)
  raw.stream.ping()
  t.equal((await raw.atGateway.has(16)).length, 16)
  raw.gateway.write(down('and here'))
  t.ok((await raw.atWorker.has(10)).equals(down('and here')))
  raw.stream.destroy()
})

test('no ping is put inside a frame', async (t) => {
  const raw = await rawStream(t)
  const sent = up('x'.repeat(100))
  raw.worker.write(sent.subarray(0, 50))
  await raw.atGateway.has(50)
  raw.stream.ping()
  raw.worker.write(sent.subarray(50))
  t.ok((await raw.atGateway.has(sent.length)).equals(sent))
  raw.stream.ping()
  t.equal((await raw.atGateway.has(sent.length + 6))[sent.length], 0x89)
  raw.stream.destroy()
})

test('a side fed with a long frame is not blamed for saying nothing', async (t) => {
  const raw = await rawStream(t)
  const sent = up('x'.repeat(1000))
  for (let at = 0; at < 1000; at += 100) {
    raw.worker.write(sent.subarray(at, at + 100))
    await raw.atGateway.has(at + 100)
    raw.stream.ping()
  }
  t.notOk(raw.stream.isClosing)
  raw.stream.destroy()
})

test('a stream stalled inside a frame of each side is not kept for ever', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(up('x'.repeat(100)).subarray(0, 50))
  raw.gateway.write(down('x'.repeat(100)).subarray(0, 50))
  await Promise.all([raw.atGateway.has(50), raw.atWorker.has(50)])
  for (let period = 0; period < 4; period += 1) raw.stream.ping()
  t.ok(raw.stream.isClosing)
  raw.clock.advance(5000)
  t.equal((await raw.summary()).code, 'idle_timeout')
})

test('a side that is not read because the other is slow is neither pinged nor blamed', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const backedUp = once(worker.ours, 'pause')
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  worker.peer.write(manyFrames(24 * 2 ** 20, true))
  await backedUp
  const atWorker = collect(worker.peer)
  // The gateway talks, but does not read.
  for (let period = 0; period < 5; period += 1) {
    gateway.peer.write(down(`period ${period}`))
    await atWorker.has((period + 1) * down('period 0').length)
    raw.stream.ping()
  }
  t.notOk(raw.stream.isClosing)
  const expected = [0, 1, 2, 3, 4].map((period) => down(`period ${period}`))
  t.ok(atWorker.bytes().equals(Buffer.concat(expected)))
  raw.stream.destroy()
})
