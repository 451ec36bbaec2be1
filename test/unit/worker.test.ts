/** A worker is forgotten when it is released: what it showed does not live as long as its stream. */

import { Buffer } from 'node:buffer'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { test, type Test } from 'tap'
import { denied, granted } from '@openclaw-k8s/auth-sidecar/denial.ts'
import type { WorkerSide } from '@openclaw-k8s/auth-sidecar/dialect/dialect.ts'
import { GatewayTraits } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-traits.ts'
import { createOpenClawDialect } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/openclaw.ts'
import { Sessions } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/sessions.ts'
import { createStreamDialect } from '@openclaw-k8s/auth-sidecar/dialect/stream.ts'
import type { Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { Worker } from '@openclaw-k8s/auth-sidecar/edge/worker.ts'
import { Semaphore } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { rawFrame } from '../kit/raw-frames.ts'
import { connectFrame, createDevice } from '../kit/light-node.ts'

const TOKEN = 'a-token-nobody-may-keep'

const socketFor = async (t: Test): Promise<Socket> => {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  await once(socket, 'connect')
  t.teardown(() => {
    socket.destroy()
    server.close()
  })
  return socket
}

const workerOf = (socket: Socket, head: Buffer): Worker =>
  new Worker({
    socket,
    head,
    address: '127.0.0.11',
    host: '127.0.0.1:18443',
    upgrade: {
      key: 'dGhlIHNhbXBsZSBub25jZQ==',
      subprotocols: [],
      role: 'node',
      hasOrigin: false,
      userAgent: undefined,
      traceparent: undefined,
      path: '/',
    },
    credential: { token: TOKEN },
    clock: new FakeClock(),
    random: () => 0,
    preAuthFrameBytesMax: 65_536,
  })

const holdsToken = (value: unknown): boolean =>
  inspect(value, { depth: Infinity, showHidden: true, maxArrayLength: null }).includes(TOKEN)

test('no token is left in a worker that was released', async (t) => {
  const request = Buffer.from(`GET / HTTP/1.1\r\nAuthorization: Bearer ${TOKEN}\r\n\r\nframe`)
  const worker = workerOf(await socketFor(t), request.subarray(request.indexOf('frame')))
  t.equal(worker.token, TOKEN)
  t.equal(worker.head.toString(), 'frame')
  t.notOk(Buffer.from(worker.head.buffer).includes(TOKEN), 'nor behind the first bytes of a stream')
  worker.release()
  t.equal(worker.token, undefined)
  t.notOk(holdsToken(worker))
})

test('a dialect asks the worker for its token and keeps no copy', async (t) => {
  const worker = workerOf(await socketFor(t), Buffer.alloc(0))
  const handshake = createStreamDialect({
    inBandCredentials: true,
    dial: () => Promise.reject(new Error('nobody dials here')),
    handshakes: new Semaphore(1),
  })(worker)
  t.strictSame(await handshake.readCredential(), granted({ token: TOKEN, role: 'node' }))
  worker.release()
  t.strictSame(await handshake.readCredential(), { ok: false, code: 'credential_missing' })
})

test('a node that was let in leaves neither its connect nor the hello of the gateway behind', async (t) => {
  const clock = new FakeClock()
  const socket = await socketFor(t)
  const sent: string[] = []
  const worker: WorkerSide = {
    address: '127.0.0.11',
    host: 'gateway',
    userAgent: undefined,
    traceparent: undefined,
    subprotocols: [],
    token: TOKEN,
    hasOrigin: false,
    role: undefined,
    open() {},
    send: (text) => void sent.push(text),
    nextMessage: async () => {
      const { payload } = JSON.parse(sent[0] ?? '') as { payload: { nonce: string; ts: number } }
      const device = createDevice()
      const frame = connectFrame(payload.nonce, payload.ts, { device, auth: { token: TOKEN } })
      return granted(JSON.stringify(frame))
    },
  }
  const dialect = createOpenClawDialect({
    inBandCredentials: true,
    isLocalAddress: () => false,
    deviceKeys: () => ({ id: 'device', publicKey: '', sign: () => '' }),
    sessions: new Sessions(),
    enrolment: {
      enter: async () => ({
        hello: 'the hello',
        gateway: { socket, head: Buffer.alloc(0), subprotocol: undefined },
      }),
    },
    traits: new GatewayTraits(),
    clock,
    randomId: () => 'nonce',
  })
  const handshake = dialect(worker)
  t.ok((await handshake.readCredential()).ok)
  t.type(handshake.refusalMessage('pod_deleted'), 'string')
  const gateway = await handshake.connectGateway({
    identity: { podUid: 'uid' } as Identity,
    role: 'node',
    allowedCommands: () => [],
    signal: new AbortController().signal,
    findObjection: () => undefined,
    revoke() {},
    judgeBy() {},
  })
  handshake.release(gateway)
  t.equal(sent.at(-1), 'the hello')
  t.equal(handshake.refusalMessage('pod_deleted'), undefined, 'there is no request left to answer')
})

/** The socket of a peer that takes nothing: each write waits for good. */
const unreadSocket = (t: Test) => {
  const written: string[] = []
  const takes: (() => void)[] = []
  const socket = new Duplex({
    read() {},
    write(bytes: Buffer, _encoding, taken) {
      written.push(bytes.toString('latin1'))
      takes.push(taken)
    },
  })
  t.teardown(() => socket.destroy())
  return {
    socket: socket as Socket,
    written,
    receive: (bytes: Buffer) => {
      socket.push(bytes)
      return turn()
    },
    take: () => {
      takes.shift()?.()
      return turn()
    },
  }
}

const pong = (payload: string): string => `\u008a${String.fromCharCode(payload.length)}${payload}`

test('pings of a peer that reads nothing leave no more than two pongs waiting', async (t) => {
  const { socket, written, receive, take } = unreadSocket(t)
  const message = workerOf(socket, Buffer.alloc(0)).nextMessage()
  for (let n = 0; n < 200; n += 1) {
    await receive(rawFrame({ first: 0x89, payload: `ping ${n}` }))
  }
  t.same(written, [pong('ping 0')])
  t.equal(socket.writableLength, pong('ping 0').length, 'nothing is queued in the socket')
  await take()
  t.same(written.slice(1), [pong('ping 199')], 'the most recent ping is answered')
  await take()
  await receive(rawFrame({ payload: 'hello' }))
  t.same(await message, granted('hello'), 'and the message is read all the same')
})

test('a peer that reads gets a pong for each ping, and one at the end before its close', async (t) => {
  const { socket, written, receive, take } = unreadSocket(t)
  const message = workerOf(socket, Buffer.alloc(0)).nextMessage()
  for (const payload of ['a', 'b', 'c']) {
    await receive(rawFrame({ first: 0x89, payload }))
    await take()
  }
  t.same(written, ['a', 'b', 'c'].map(pong))
  await receive(rawFrame({ first: 0x89, payload: 'd' }))
  await receive(rawFrame({ first: 0x89, payload: 'e' }))
  await receive(rawFrame({ first: 0x88 }))
  t.same(await message, denied('worker_gone'))
  for (let n = 0; n < 3; n += 1) await take()
  t.same(written.slice(3), [pong('d'), pong('e'), '\u0088\u0000'])
})

test('a worker that ends its side during its admission is gone at once', async (t) => {
  const end = async (socket: Duplex) => {
    socket.push(null)
    await turn()
  }
  const shown = unreadSocket(t)
  const early = workerOf(shown.socket, Buffer.from('early'))
  const told: string[] = []
  early.onGone = (code) => told.push(code)
  await shown.receive(Buffer.from(' bytes'))
  t.equal(early.abortCode, undefined)
  t.equal(early.head.toString(), 'early bytes')
  await end(shown.socket)
  t.equal(early.abortCode, 'worker_gone', 'with its credential at the upgrade')
  t.same(told, ['worker_gone'])
  t.same(await early.nextMessage(), denied('worker_gone'), 'nothing is waited for any more')

  const inBand = unreadSocket(t)
  const later = workerOf(inBand.socket, Buffer.alloc(0))
  const message = later.nextMessage()
  await inBand.receive(Buffer.concat([rawFrame({ payload: 'hello' }), Buffer.from('rest')]))
  t.same(await message, granted('hello'))
  t.equal(later.abortCode, undefined)
  await end(inBand.socket)
  t.equal(later.abortCode, 'worker_gone', 'behind its first message')

  const silent = unreadSocket(t)
  const awaited = workerOf(silent.socket, Buffer.alloc(0)).nextMessage()
  await end(silent.socket)
  t.same(await awaited, denied('worker_gone'), 'instead of its first message')
})

test('what a worker sends before, between and behind two messages is released in order', async (t) => {
  const { socket, receive } = unreadSocket(t)
  const one = rawFrame({ payload: 'one' })
  const two = rawFrame({ payload: 'two' })
  const worker = workerOf(socket, one.subarray(0, 3))
  await receive(one.subarray(3, 5))
  const first = worker.nextMessage()
  await receive(Buffer.concat([one.subarray(5), two.subarray(0, 2)]))
  t.same(await first, granted('one'))
  await receive(two.subarray(2, 4))
  const second = worker.nextMessage()
  await receive(Buffer.concat([two.subarray(4), Buffer.from('abc')]))
  t.same(await second, granted('two'))
  await receive(Buffer.from('def'))
  t.equal(worker.release().toString(), 'abcdef')
  t.equal(worker.head.length, 0, 'and nothing of it is kept')
  await receive(Buffer.from('ghi'))
  t.equal(String(socket.read()), 'ghi', 'the rest is in the socket')
})

test('a released worker has no listener left at its socket', async (t) => {
  const { socket } = unreadSocket(t)
  const events = ['data', 'end', 'close']
  const before = events.map((event) => socket.listenerCount(event))
  const worker = workerOf(socket, Buffer.alloc(0))
  void worker.nextMessage()
  worker.abort('draining')
  worker.release()
  t.same(
    events.map((event) => socket.listenerCount(event)),
    before,
  )
})

test('a first message can have up to 256 frames, pings included', async (t) => {
  const start = rawFrame({ first: 0x01, payload: 'h' })
  const middle = rawFrame({ first: 0x00, payload: 'e' })
  const ping = rawFrame({ first: 0x89, payload: '' })
  const last = rawFrame({ first: 0x80, payload: 'y' })
  const read = (frames: readonly Buffer[]) => {
    const { socket, receive } = unreadSocket(t)
    const message = workerOf(socket, Buffer.alloc(0)).nextMessage()
    void receive(Buffer.concat(frames))
    return message
  }
  const repeat = (frame: Buffer, count: number) => Array.from({ length: count }, () => frame)
  const text = `h${'e'.repeat(127)}y`
  const most = [start, ...repeat(middle, 127), ...repeat(ping, 127), last]
  t.equal(most.length, 256)
  t.same(await read(most), granted(text))
  for (const frame of [middle, ping]) {
    t.same(await read([start, frame, ...most.slice(1)]), denied('frame_too_large'))
    t.same(await read([start, ...repeat(frame, 256)]), denied('frame_too_large'))
  }
  t.same(await read(repeat(ping, 257)), denied('frame_too_large'))
  t.same(await read([...repeat(ping, 255), rawFrame({ payload: 'hello' })]), granted('hello'))
})
