/** The gateway stub keeps its word: it records truly and misbehaves exactly as told. */

import { spawn } from 'node:child_process'
import { createHash, generateKeyPairSync, sign } from 'node:crypto'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { connect as connectTcp } from 'node:net'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import type { GatewayStub, GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import { describeHandshake } from '@openclaw-k8s/gateway-stub/handshake.ts'
import { Journal } from '@openclaw-k8s/gateway-stub/journal.ts'
import { judgeConnect } from '@openclaw-k8s/gateway-stub/openclaw-connect.ts'
import { readConnect } from '@openclaw-k8s/gateway-stub/openclaw-frames.ts'
import tap from 'tap'
import type { Test } from 'tap'
import { WebSocket } from 'ws'
import type { ClientOptions } from 'ws'

type Owner = Pick<Test, 'teardown'>
type Message = { readonly data: Buffer; readonly isBinary: boolean }

async function start(owner: Owner, options: GatewayStubOptions = {}): Promise<GatewayStub> {
  const stub = await startGatewayStub(options)
  owner.teardown(() => stub.close())
  return stub
}

/** An independent client that loses no message and no end. */
function open(stub: GatewayStub, options: ClientOptions = {}, protocols: string[] = []) {
  const ws = new WebSocket(`${stub.url}/a/path?q=1`, protocols, options)
  const messages = new Journal<Message>({ entriesMax: 10_000 })
  const closed = Promise.withResolvers<{ code: number; reason: string }>()
  const failed = Promise.withResolvers<Error>()
  ws.on('message', (data, isBinary) => messages.add({ data: data as Buffer, isBinary }))
  ws.on('close', (code, reason) => closed.resolve({ code, reason: reason.toString() }))
  ws.on('error', (error) => failed.resolve(error))
  const opened = new Promise<void>((resolve) => ws.once('open', () => resolve()))
  let read = 0
  const nextMessage = (): Promise<Message> => messages.wait((read += 1))
  const nextFrame = async () => JSON.parse((await nextMessage()).data.toString())
  const ends = { closed: closed.promise, failed: failed.promise }
  return { ws, messages, opened, nextMessage, nextFrame, ...ends }
}

/** A hand-made upgrade on a bare socket; `text` is all that came until the other side ended. */
async function openRaw(stub: GatewayStub): Promise<{ socket: Socket; text: Promise<string> }> {
  const socket = connectTcp(stub.port, '127.0.0.1')
  const chunks: Buffer[] = []
  const ended = Promise.withResolvers<string>()
  socket.on('data', (chunk) => chunks.push(chunk as Buffer))
  socket.on('error', () => {})
  socket.on('close', () => ended.resolve(Buffer.concat(chunks).toString('latin1')))
  socket.write(
    'GET / HTTP/1.1\r\nHost: stub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  )
  await stub.waitForHandshake(stub.handshakes.length + 1)
  return { socket, text: ended.promise }
}

const upgradeHeaders = {
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
}

/** The answer to an upgrade, its connection dropped. */
async function upgrade(stub: GatewayStub, headers: OutgoingHttpHeaders) {
  const options = { port: stub.port, host: '127.0.0.1', path: '/a/path?q=1', headers }
  const request = httpRequest(options).end()
  const [answer, socket] = (await once(request, 'upgrade')) as [IncomingMessage, Socket]
  socket.destroy()
  return answer
}

tap.test('an echo is byte-exact and keeps text text and binary binary', async (t) => {
  const stub = await start(t)
  const client = open(stub)
  await client.opened
  const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, n) => (n * 7) % 256))
  client.ws.send('\uFEFFgrüße')
  client.ws.send(bytes)
  client.ws.send('')
  const text = await client.nextMessage()
  t.same(text, { data: Buffer.from('\uFEFFgrüße'), isBinary: false })
  const binary = await client.nextMessage()
  t.ok(binary.isBinary)
  t.ok(binary.data.equals(bytes))
  t.same(await client.nextMessage(), { data: Buffer.alloc(0), isBinary: false })
  t.equal(stub.receivedTotal(), 3)
  t.ok(stub.received[1]?.data.equals(bytes))
})

tap.test(
  'the text headers is answered with the headers, the bytes headers are echoed',
  async (t) => {
    const stub = await start(t)
    const client = open(stub, { headers: { 'x-forwarded-for': '10.0.0.5' } })
    await client.opened
    client.ws.send('headers')
    client.ws.send(Buffer.from('headers'))
    t.match(await client.nextFrame(), { 'x-forwarded-for': '10.0.0.5', upgrade: 'websocket' })
    t.equal((await client.nextMessage()).data.toString(), 'headers')
  },
)

tap.test('a handshake is recorded as it came, repeated headers included', async (t) => {
  const stub = await start(t, { clock: { now: () => 1234, after: () => () => {} } })
  await upgrade(stub, { ...upgradeHeaders, 'X-Twice': ['a', 'b'] })
  const handshake = await stub.waitForHandshake(1)
  t.equal(handshake.path, '/a/path?q=1')
  t.equal(handshake.peerAddress, '127.0.0.1')
  t.ok(handshake.peerPort > 0)
  t.equal(handshake.at, 1234)
  t.equal(handshake.rawHeaders.filter((name) => name === 'X-Twice').length, 2)
  t.equal(handshake.headers['x-twice'], 'a, b')
  t.equal(stub.handshakes[0], handshake)
  t.equal((await stub.waitForConnection(1)).handshake, handshake)
})

tap.test('an accepted connection has neither compression nor a subprotocol', async (t) => {
  const stub = await start(t)
  // A client of ws gives up when none of its subprotocols is picked, so the answer is read by hand.
  const headers = { ...upgradeHeaders, 'Sec-WebSocket-Protocol': 'one, two' }
  const answer = await upgrade(stub, headers)
  t.equal(answer.statusCode, 101)
  t.equal(answer.headers['sec-websocket-extensions'], undefined)
  t.equal(answer.headers['sec-websocket-protocol'], undefined)
})

tap.test('live connections are counted and steered by their handles', async (t) => {
  const stub = await start(t)
  const clients = []
  for (let n = 0; n < 3; n += 1) {
    const client = open(stub)
    await client.opened
    clients.push(client)
  }
  const [first, second, third] = clients
  if (first === undefined || second === undefined || third === undefined) return
  const connections = await Promise.all([1, 2, 3].map((n) => stub.waitForConnection(n)))
  t.equal(stub.connections.size, 3)
  connections[0]?.send('to the first')
  connections[0]?.close(4001, 'removed')
  t.equal((await first.nextMessage()).data.toString(), 'to the first')
  t.same(await first.closed, { code: 4001, reason: 'removed' })
  t.same(await connections[0]?.closed, { code: 4001, reason: 'removed' })
  connections[1]?.terminate()
  t.equal((await second.closed).code, 1006)
  // A masked frame of a server breaks RFC 6455 §5.1.
  connections[2]?.writeBytes(Buffer.of(0x81, 0x81, 1, 2, 3, 4, 5))
  t.match(await third.failed, { message: /MASK/ })
  await Promise.all(connections.map((connection) => connection.closed))
  t.equal(stub.connections.size, 0)
})

tap.test('a message of exactly the limit passes, one byte more closes 1009', async (t) => {
  const stub = await start(t, { messageBytesMax: 1000 })
  const client = open(stub)
  await client.opened
  client.ws.send(Buffer.alloc(1000))
  t.equal((await client.nextMessage()).data.length, 1000)
  client.ws.send(Buffer.alloc(1001))
  t.equal((await client.closed).code, 1009)
  // What is still under way must be read to its end, or a reset overtakes the close frame.
  const bulky = open(stub)
  await bulky.opened
  const taken = new Promise((resolve) => bulky.ws.send(Buffer.alloc(20_000_000), resolve))
  t.notOk(await taken)
  t.equal((await bulky.closed).code, 1009)
})

tap.test('stall never answers', async (t) => {
  const stub = await start(t, { behaviour: 'stall' })
  const { socket, text } = await openRaw(stub)
  t.equal(stub.connections.size, 1)
  // The end of our side is the only event that can come.
  socket.end()
  t.equal(await text, '')
})

tap.test('refuse destroys the connection without a byte', async (t) => {
  const stub = await start(t, { behaviour: 'refuse' })
  const { text } = await openRaw(stub)
  t.equal(await text, '')
})

tap.test('status answers what it was told, with trailing bytes behind the response', async (t) => {
  const stub = await start(t)
  for (const status of [200, 302, 400, 426, 500]) {
    stub.setBehaviour({
      kind: 'status',
      status,
      headers: { 'X-Reason': 'test' },
      body: 'no',
      trailing: 'TRAILING',
    })
    const { text } = await openRaw(stub)
    t.match(
      await text,
      new RegExp(`^HTTP/1\\.1 ${status} [^]*X-Reason: test[^]*\r\n\r\nnoTRAILING$`),
    )
  }
})

tap.test('status can keep the connection open', async (t) => {
  const stub = await start(t, { behaviour: { kind: 'status', status: 200, keepOpen: true } })
  const { socket, text } = await openRaw(stub)
  await once(socket, 'data')
  const connection = await stub.waitForConnection(1)
  connection.writeBytes(Buffer.from('still here'))
  await once(socket, 'data')
  socket.end()
  t.match(await text, /still here$/)
})

tap.test('wrong-accept answers 101 with a key of its own', async (t) => {
  const stub = await start(t, { behaviour: 'wrong-accept' })
  t.match(await open(stub).failed, { message: 'Invalid Sec-WebSocket-Accept header' })
})

tap.test('extension claims a compression nobody asked for', async (t) => {
  const stub = await start(t, { behaviour: 'extension' })
  const { failed } = open(stub, { perMessageDeflate: false })
  t.match(await failed, { message: /Sec-WebSocket-Extensions/ })
})

tap.test('subprotocol picks the first offered, or claims another', async (t) => {
  const stub = await start(t, { behaviour: 'subprotocol' })
  const client = open(stub, {}, ['one', 'two'])
  await client.opened
  t.equal(client.ws.protocol, 'one')
  stub.setBehaviour({ kind: 'subprotocol', name: 'three' })
  t.match(await open(stub, {}, ['one']).failed, { message: /invalid subprotocol/ })
})

tap.test(
  'close comes after as many messages as it was told, with its code and reason',
  async (t) => {
    const stub = await start(t, { behaviour: { kind: 'close', code: 4000, reason: 'enough' } })
    t.same(await open(stub).closed, { code: 4000, reason: 'enough' })
    stub.setBehaviour({ kind: 'close', code: 1008, afterMessages: 2 })
    const client = open(stub)
    await client.opened
    client.ws.send('one')
    await client.nextMessage()
    t.equal(client.ws.readyState, WebSocket.OPEN)
    client.ws.send('two')
    t.equal((await client.closed).code, 1008)
    t.equal(client.messages.total, 2)
  },
)

tap.test('drop ends the TCP connection without a close frame', async (t) => {
  const stub = await start(t, { behaviour: 'drop' })
  const dropped = open(stub)
  await dropped.opened
  t.equal((await dropped.closed).code, 1006)
  stub.setBehaviour({ kind: 'drop', afterMessages: 1 })
  const client = open(stub)
  await client.opened
  client.ws.send('one')
  t.equal((await client.closed).code, 1006)
})

tap.test('silent reads nothing until it is resumed, and then all of it', async (t) => {
  const stub = await start(t, { behaviour: 'silent' })
  const client = open(stub)
  const connection = await stub.waitForConnection(1)
  await client.opened
  client.ws.send('early')
  // More than the kernel's buffers of both ends can hold, so that a rest must stay with the client.
  for (let n = 0; n < 4; n += 1) client.ws.send(Buffer.alloc(8_000_000, n))
  stub.setBehaviour('accept')
  const other = open(stub)
  await other.opened
  // A round trip elsewhere gives the stub every chance to read what came before it.
  other.ws.send('later')
  await other.nextMessage()
  t.same(
    stub.received.map(({ data }) => data.toString()),
    ['later'],
  )
  t.ok(client.ws.bufferedAmount > 0)
  connection.resume()
  t.equal((await client.nextMessage()).data.toString(), 'early')
  for (let n = 0; n < 4; n += 1) {
    const { data } = await client.nextMessage()
    t.ok(data.equals(Buffer.alloc(8_000_000, n)))
  }
})

tap.test('mute answers neither a ping nor a close', async (t) => {
  const stub = await start(t, { behaviour: 'mute' })
  const client = open(stub)
  const connection = await stub.waitForConnection(1)
  await client.opened
  let answers = 0
  client.ws.on('pong', () => (answers += 1))
  client.ws.ping()
  client.ws.close(1000)
  // What the stub sends of its own accord arrives behind any answer it would have given.
  connection.send('spoken')
  t.equal((await client.nextMessage()).data.toString(), 'spoken')
  t.equal(answers, 0)
  t.equal(client.ws.readyState, WebSocket.CLOSING)
  client.ws.terminate()
  t.equal((await connection.closed).code, 1006)
})

tap.test('a mute connection frames short, long and very long messages rightly', async (t) => {
  const stub = await start(t, { behaviour: 'mute' })
  const client = open(stub)
  const connection = await stub.waitForConnection(1)
  for (const length of [0, 125, 126, 65_535, 65_536]) {
    connection.send(Buffer.alloc(length, 7))
    t.same((await client.nextMessage()).data.length, length)
  }
  connection.close(1001, 'bye')
  t.same(await client.closed, { code: 1001, reason: 'bye' })
})

/** Turns of the event loop in which the stub could do what it should not. */
async function makeRoundTrips(stub: GatewayStub, count: number): Promise<void> {
  const client = open(stub)
  await client.opened
  for (let n = 0; n < count; n += 1) {
    client.ws.send('turn')
    await client.nextMessage()
  }
  client.ws.close()
}

tap.test('flood sends all it was told, no faster than it is read', async (t) => {
  const stub = await start(t)
  stub.setBehaviour({ kind: 'flood', messages: 1000, messageBytes: 65_536 }, { connections: 1 })
  const client = open(stub)
  await client.opened
  client.ws.pause()
  const connection = await stub.waitForConnection(1)
  await makeRoundTrips(stub, 1)
  t.ok(connection.bufferedBytes() > 0)
  t.ok(connection.bufferedBytes() < 1_200_000)
  client.ws.resume()
  for (let n = 0; n < 1000; n += 1) {
    const { data } = await client.nextMessage()
    if (!data.equals(Buffer.alloc(65_536, n % 256))) t.fail(`message ${n} differs`)
  }
  client.ws.send('and it still echoes')
  t.equal((await client.nextMessage()).data.toString(), 'and it still echoes')
  t.equal(client.messages.total, 1001)
})

tap.test('an echo to a reader that does not read is not queued without bound', async (t) => {
  const stub = await start(t)
  const client = open(stub)
  await client.opened
  const connection = await stub.waitForConnection(1)
  client.ws.pause()
  for (let n = 0; n < 40; n += 1) client.ws.send(Buffer.alloc(1_000_000, n))
  await makeRoundTrips(stub, 300)
  t.ok(connection.bufferedBytes() < 4_000_000)
  client.ws.resume()
  for (let n = 0; n < 40; n += 1) {
    const { data } = await client.nextMessage()
    if (!data.equals(Buffer.alloc(1_000_000, n))) t.fail(`message ${n} differs`)
  }
})

tap.test('a behaviour may hold for the next connections only', async (t) => {
  const stub = await start(t)
  stub.setBehaviour('refuse', { connections: 2 })
  await open(stub).failed
  await open(stub).failed
  await open(stub).opened
  stub.setBehaviour('refuse', { connections: 5 })
  stub.setBehaviour('accept')
  await open(stub).opened
  t.equal(stub.handshakes.length, 4)
})

tap.test('the health paths answer plain HTTP', async (t) => {
  const stub = await start(t)
  const response = await fetch(`http://127.0.0.1:${stub.port}/readyz`)
  t.equal(response.status, 200)
  t.same(await response.json(), { ok: true })
  t.equal((await fetch(`http://127.0.0.1:${stub.port}/other`)).status, 404)
})

tap.test('a closed stub closes its connections 1012, ends all waits and its port', async (t) => {
  const stub = await startGatewayStub()
  const client = open(stub)
  await client.opened
  stub.setBehaviour('stall')
  await openRaw(stub)
  const wait = stub.waitForHandshake()
  await stub.close()
  await t.rejects(wait, { message: /closed/ })
  await t.rejects(stub.waitForMessage(), { message: /closed/ })
  t.same(await client.closed, { code: 1012, reason: 'service restart' })
  t.match(await open(stub).failed, { code: 'ECONNREFUSED' })
})

tap.test('a journal keeps the newest entries within its bounds', async (t) => {
  const journal = new Journal<number>({ entriesMax: 3, weightMax: 10, weigh: (entry) => entry })
  const second = journal.wait(2)
  for (const entry of [1, 2, 3, 4]) journal.add(entry)
  t.same(journal.entries, [2, 3, 4])
  t.equal(await second, 2)
  t.equal(await journal.wait(4), 4)
  await t.rejects(journal.wait(1), { message: /not kept/ })
  journal.add(9)
  t.same(journal.entries, [9])
  journal.add(11)
  t.same(journal.entries, [11], 'the newest stays, whatever it weighs')
  t.equal(journal.total, 6)
})

tap.test('a printed handshake shows no credential and no control character', async (t) => {
  const secrets = ['Authorization', 'Proxy-Authorization', 'Cookie', 'X-OpenClaw-SA-Token']
  const more = ['CF-Access-Client-Secret', 'X-OpenClaw-K8s-Assertion', 'Sec-WebSocket-Protocol']
  const rawHeaders = [...secrets, ...more].flatMap((name) => [name, 'HIDDEN'])
  const line = describeHandshake({
    id: 7,
    rawHeaders: [...rawHeaders, 'X-Forwarded-For', '10.0.0.5', 'X-Odd', 'a\u009b31m"'],
    headers: {},
    path: '/path?token=HIDDEN',
    peerAddress: '127.0.0.1',
    peerPort: 5,
    at: 0,
  })
  t.notMatch(line, 'HIDDEN')
  t.match(line, 'Authorization=«present»')
  t.match(line, 'handshake 7 /path from 127.0.0.1 port 5')
  t.match(line, 'X-Forwarded-For="10.0.0.5"')
  t.match(line, 'X-Odd="a\\u009b31m\\""')
})

// OpenClaw mode.

type ConnectOptions = {
  readonly auth?: Record<string, string>
  readonly proof?: 'v3' | 'v2'
  readonly client?: Record<string, unknown>
  readonly skewMs?: number
}

/** Plays a node's part: answers the challenge with a `connect` it signed. */
function nodeConnect(challenge: { nonce: string; ts: number }, options: ConnectOptions = {}) {
  const { auth = { token: 'secret' }, proof = 'v3', skewMs = 0 } = options
  const pair = generateKeyPairSync('ed25519')
  const x = String(pair.publicKey.export({ format: 'jwk' }).x)
  const id = createHash('sha256').update(Buffer.from(x, 'base64url')).digest('hex')
  const signedAt = challenge.ts + skewMs
  const secret = auth['token'] ?? auth['deviceToken'] ?? auth['bootstrapToken'] ?? ''
  const parts = [proof, id, 'node-host', 'node', 'node', '', signedAt, secret, challenge.nonce]
  const text = [...parts, ...(proof === 'v3' ? ['linux', 'linux'] : [])].join('|')
  const signature = sign(null, Buffer.from(text), pair.privateKey).toString('base64url')
  return {
    minProtocol: 4,
    maxProtocol: 4,
    client: { id: 'node-host', mode: 'node', platform: 'linux', deviceFamily: 'Linux' },
    role: 'node',
    scopes: [] as string[],
    auth,
    device: { id, publicKey: x, signature, signedAt, nonce: challenge.nonce },
  }
}

const requestFrame = (id: string, method: string, params: unknown) =>
  JSON.stringify({ type: 'req', id, method, params })

async function openNode(stub: GatewayStub) {
  const client = open(stub)
  const { event, payload } = await client.nextFrame()
  if (event !== 'connect.challenge') throw new Error(`not a challenge: ${event}`)
  return { ...client, challenge: payload as { nonce: string; ts: number } }
}

async function openReadyNode(stub: GatewayStub) {
  const node = await openNode(stub)
  const params = nodeConnect(node.challenge)
  node.ws.send(requestFrame('1', 'connect', params))
  const hello = await node.nextFrame()
  return { ...node, hello, deviceId: params.device.id }
}

const openclaw = { mode: 'openclaw', token: 'secret' } as const

tap.test(
  'a node with the secret and a device proof gets hello-ok with device tokens',
  async (t) => {
    const stub = await start(t, openclaw)
    const { hello } = await openReadyNode(stub)
    t.match(hello, {
      type: 'res',
      id: '1',
      ok: true,
      payload: {
        type: 'hello-ok',
        protocol: 4,
        auth: {
          method: 'token',
          role: 'node',
          scopes: [],
          deviceToken: String,
          issuedAtMs: Number,
        },
        policy: { maxPayload: 26_214_400, tickIntervalMs: 30_000 },
      },
    })
    const v2 = await openNode(stub)
    v2.ws.send(requestFrame('1', 'connect', nodeConnect(v2.challenge, { proof: 'v2' })))
    t.match(await v2.nextFrame(), { ok: true })
  },
)

tap.test('a connect that does not hold is refused with its code and closed 1008', async (t) => {
  const stub = await start(t, openclaw)
  type Params = ReturnType<typeof nodeConnect>
  type Case = readonly [string, ConnectOptions, ((params: Params) => unknown)?]
  const cases: readonly Case[] = [
    ['AUTH_TOKEN_MISMATCH', { auth: { token: 'other' } }],
    ['AUTH_TOKEN_MISSING', { auth: {} }],
    ['AUTH_BOOTSTRAP_TOKEN_INVALID', { auth: { bootstrapToken: 'unknown' } }],
    [
      'DEVICE_AUTH_SIGNATURE_INVALID',
      { auth: { token: 'x' } },
      (p) => ({ ...p, auth: { token: 'secret' } }),
    ],
    ['DEVICE_AUTH_SIGNATURE_INVALID', {}, (p) => ({ ...p, scopes: ['operator.admin'] })],
    ['DEVICE_AUTH_SIGNATURE_EXPIRED', { skewMs: -130_000 }],
    ['DEVICE_AUTH_SIGNATURE_EXPIRED', { skewMs: 130_000 }],
    ['DEVICE_AUTH_NONCE_MISMATCH', {}, (p) => ({ ...p, device: { ...p.device, nonce: 'old' } })],
    ['DEVICE_AUTH_DEVICE_ID_MISMATCH', {}, (p) => ({ ...p, device: { ...p.device, id: 'ab' } })],
    [
      'DEVICE_AUTH_PUBLIC_KEY_INVALID',
      {},
      (p) => ({ ...p, device: { ...p.device, publicKey: 'AA' } }),
    ],
    ['DEVICE_IDENTITY_REQUIRED', {}, (p) => ({ ...p, device: undefined })],
    ['PROTOCOL_MISMATCH', {}, (p) => ({ ...p, minProtocol: 5, maxProtocol: 5 })],
    ['PROTOCOL_MISMATCH', {}, (p) => ({ ...p, minProtocol: 3, maxProtocol: 3 })],
    ['INVALID_HANDSHAKE', {}, (p) => ({ ...p, client: undefined })],
    ['INVALID_HANDSHAKE', {}, (p) => ({ ...p, scopes: [1] })],
    ['INVALID_HANDSHAKE', {}, (p) => ({ ...p, device: { id: 1 } })],
  ]
  for (const [code, options, change = (params: Params) => params] of cases) {
    const node = await openNode(stub)
    node.ws.send(requestFrame('9', 'connect', change(nodeConnect(node.challenge, options))))
    t.match(await node.nextFrame(), { id: '9', ok: false, error: { details: { code } } }, code)
    t.equal((await node.closed).code, 1008)
  }
})

tap.test('a bootstrap token admits once and only with a sound proof', async (t) => {
  const bootstrapTokens = new Set(['boot'])
  const stub = await start(t, { ...openclaw, bootstrapTokens })
  const auth = { bootstrapToken: 'boot' }
  const forged = await openNode(stub)
  const params = nodeConnect(forged.challenge, { auth })
  forged.ws.send(requestFrame('1', 'connect', { ...params, role: 'other' }))
  t.match(await forged.nextFrame(), { ok: false })
  const node = await openNode(stub)
  node.ws.send(requestFrame('1', 'connect', nodeConnect(node.challenge, { auth })))
  t.match(await node.nextFrame(), { ok: true, payload: { auth: { method: 'bootstrap-token' } } })
  t.equal(bootstrapTokens.size, 0)
})

const CAPTURED_TOKEN = [
  'eyJhbGciOiJSUzI1NiIsImtpZCI6ImxhYiJ9',
  'eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMiLCJhdWQiOlsib3BlbmNsYXciXSwi' +
    'c3ViIjoic3lzdGVtOnNlcnZpY2VhY2NvdW50OndvcmtlcnM6YnVpbGRlciIsImV4cCI6NDEwMjQ0NDgw' +
    'MH0',
  'bGFiLXNpZ25hdHVyZQ',
].join('.')

tap.test('what a real node signed is proven, and nothing else', (t) => {
  // Captured from openclaw 2026.9.6; the token is a lab's.
  const nonce = '3053f0ae-3521-4bc7-8b4a-28728ddf5727'
  const signedAt = 1_795_394_171_327
  const params = {
    minProtocol: 4,
    maxProtocol: 4,
    client: { id: 'node-host', platform: 'linux', deviceFamily: 'Linux', mode: 'node' },
    auth: { token: CAPTURED_TOKEN },
    role: 'node',
    scopes: [],
    device: {
      id: '6f3286afd136c9a9f17ced69233ebfd48f47f8975c0e9b42dc7ba5f70daef8f7',
      publicKey: 'nvgAepck2jL1xuYcpFIEedPBc6HPpynJvI9g9cnuaRw',
      signature:
        'u6cZVl_NkQOXITMFNskw6Z3dp70WzK-zK8_kdMjPE7m60qfez1KUnBfi_twQ0mNAKzslzRGUmLgpy4UVA9FaBQ',
      signedAt,
      nonce,
    },
  }
  const terms = { nonce, now: signedAt, token: undefined, bootstrapTokens: new Set<string>() }
  const judge = (changed: object) => {
    const connect = readConnect({ ...params, ...changed })
    return connect !== undefined && judgeConnect(connect, terms).ok
  }
  t.ok(judge({}))
  t.notOk(judge({ auth: { token: 'another' } }))
  t.notOk(judge({ role: 'operator' }))
  t.notOk(judge({ client: { ...params.client, platform: 'darwin' } }))
  t.end()
})

tap.test('a first message that is no connect closes 1008, one over 64 KiB 1009', async (t) => {
  const stub = await start(t, openclaw)
  type Challenge = Parameters<typeof nodeConnect>[0]
  // Each would be let in but for the one thing that is wrong with it.
  const firsts: readonly (readonly [number, (challenge: Challenge) => string | Buffer])[] = [
    [1008, () => 'not json'],
    [1008, () => '[]'],
    [1008, (challenge) => Buffer.from(requestFrame('1', 'connect', nodeConnect(challenge)))],
    [1008, (challenge) => requestFrame('1', 'health', nodeConnect(challenge))],
    [1009, (challenge) => requestFrame('1', 'connect', nodeConnect(challenge)).padEnd(65_537)],
  ]
  for (const [code, makeFirst] of firsts) {
    const node = await openNode(stub)
    node.ws.send(makeFirst(node.challenge))
    t.equal((await node.closed).code, code)
  }
  const largest = await openNode(stub)
  largest.ws.send(requestFrame('1', 'connect', nodeConnect(largest.challenge)).padEnd(65_536))
  t.match(await largest.nextFrame(), { ok: true })
})

tap.test('a peer that sends no connect in 15 s is closed 1008', async (t) => {
  const timers: { ms: number; due: () => void; isStopped: boolean }[] = []
  const after = (ms: number, due: () => void) => {
    const timer = { ms, due, isStopped: false }
    timers.push(timer)
    return () => void (timer.isStopped = true)
  }
  const stub = await start(t, { ...openclaw, clock: { now: () => 1_000_000, after } })
  const late = await openNode(stub)
  t.equal(timers[0]?.ms, 15_000)
  timers[0]?.due()
  t.same(await late.closed, { code: 1008, reason: 'handshake timeout' })
  await openReadyNode(stub)
  t.ok(timers[1]?.isStopped)
})

tap.test('a second connect is refused and the session goes on', async (t) => {
  const stub = await start(t, openclaw)
  const node = await openReadyNode(stub)
  node.ws.send(requestFrame('2', 'connect', nodeConnect(node.challenge)))
  t.match(await node.nextFrame(), {
    id: '2',
    ok: false,
    error: { message: 'connect is only valid as the first request' },
  })
  node.ws.send(requestFrame('3', 'node.event', { event: 'e' }))
  t.match(await node.nextFrame(), { id: '3', ok: true, payload: { ok: true, event: 'e' } })
  node.ws.send(requestFrame('4', 'config.get', {}))
  t.match(await node.nextFrame(), { id: '4', error: { message: 'unauthorized role: node' } })
})

tap.test('an invocation reaches the node and resolves with its result', async (t) => {
  const stub = await start(t, openclaw)
  const node = await openReadyNode(stub)
  const connection = await stub.waitForConnection(1)
  const result = stub.invoke(connection, 'system.which', { bins: ['uname'] })
  const { event, payload } = await node.nextFrame()
  t.equal(event, 'node.invoke.request')
  t.match(payload, { nodeId: node.deviceId, command: 'system.which', timeoutMs: 15_000 })
  t.same(JSON.parse(payload.paramsJSON), { bins: ['uname'] })
  const foreign = { id: 'unknown', ok: true, payloadJSON: '1' }
  node.ws.send(requestFrame('2', 'node.invoke.result', foreign))
  const own = { id: payload.id, nodeId: node.deviceId, ok: true, payloadJSON: '{"found":true}' }
  node.ws.send(requestFrame('3', 'node.invoke.result', own))
  t.same(await result, { ok: true, payload: { found: true }, error: undefined })
  t.match(await node.nextFrame(), { id: '2', ok: true })
  t.match(await node.nextFrame(), { id: '3', ok: true, payload: { ok: true } })
})

tap.test('an invocation ends with its connection and with its deadline', async (t) => {
  const runs: (() => void)[] = []
  const after = (_ms: number, due: () => void) => {
    runs.push(due)
    return () => {}
  }
  const stub = await start(t, { ...openclaw, clock: { now: () => 1_000_000, after } })
  const early = await openNode(stub)
  const unready = await stub.waitForConnection(1)
  await t.rejects(stub.invoke(unready, 'c', {}), { message: /hello/ })
  early.ws.terminate()
  await unready.closed
  await t.rejects(stub.invoke(unready, 'c', {}), { message: /not a live/ })
  const node = await openReadyNode(stub)
  const connection = await stub.waitForConnection(2)
  const late = stub.invoke(connection, 'c', {}, { timeoutMs: 50 })
  runs.at(-1)?.()
  await t.rejects(late, { message: /within 50 ms/ })
  const orphan = stub.invoke(connection, 'c', {})
  node.ws.terminate()
  await t.rejects(orphan, { message: /closed/ })
})

tap.test('a tick goes to those who said hello, on demand only', async (t) => {
  const stub = await start(t, openclaw)
  const pending = await openNode(stub)
  const node = await openReadyNode(stub)
  stub.tick()
  t.match(await node.nextFrame(), { type: 'event', event: 'tick', payload: { ts: Number } })
  pending.ws.send(requestFrame('1', 'connect', nodeConnect(pending.challenge)))
  t.match(await pending.nextFrame(), { type: 'res', ok: true })
})

tap.test('an operator with the secret needs no device and calls the methods given', async (t) => {
  const methods = {
    'device.pair.list': (params: unknown) => ({ devices: [params] }),
    broken: () => {
      throw new Error('it broke')
    },
  }
  const stub = await start(t, { ...openclaw, methods, bootstrapTokens: new Set(['boot']) })
  const connect = {
    minProtocol: 4,
    maxProtocol: 4,
    client: { id: 'gateway-client', mode: 'backend' },
    role: 'operator',
    scopes: ['operator.admin'],
  }
  const stranger = await openNode(stub)
  stranger.ws.send(requestFrame('1', 'connect', { ...connect, auth: { token: 'wrong' } }))
  t.match(await stranger.nextFrame(), { ok: false })
  const newcomer = await openNode(stub)
  newcomer.ws.send(requestFrame('1', 'connect', { ...connect, auth: { bootstrapToken: 'boot' } }))
  t.match(await newcomer.nextFrame(), { error: { details: { code: 'DEVICE_IDENTITY_REQUIRED' } } })
  const operator = await openNode(stub)
  operator.ws.send(requestFrame('1', 'connect', { ...connect, auth: { token: 'secret' } }))
  t.match(await operator.nextFrame(), { ok: true })
  operator.ws.send(requestFrame('2', 'device.pair.list', { a: 1 }))
  t.match(await operator.nextFrame(), { id: '2', ok: true, payload: { devices: [{ a: 1 }] } })
  operator.ws.send(requestFrame('3', 'broken', {}))
  t.match(await operator.nextFrame(), { id: '3', ok: false, error: { message: 'it broke' } })
  operator.ws.send(requestFrame('4', 'toString', {}))
  t.match(await operator.nextFrame(), { id: '4', ok: false, error: { message: 'unknown method' } })
})

// The command line.

const MAIN = fileURLToPath(import.meta.resolve('@openclaw-k8s/gateway-stub/main.ts'))

function run(...flags: readonly string[]) {
  const child = spawn(process.execPath, [MAIN, ...flags], { stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stderr.on('data', (chunk) => (stderr += chunk))
  const heard = new Journal<string>({ entriesMax: 1000 })
  child.stdout.on('data', (chunk) => {
    stdout += chunk
    heard.add(stdout)
  })
  const says = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(stdout)
      if (found !== null) return found
      await heard.wait()
    }
  }
  const ended = once(child, 'close').then(([code]) => ({ code, stdout, stderr }))
  return { child, says, ended }
}

tap.test('the command line serves, prints handshakes and leaves on a signal with 0', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const { child, says, ended } = run('--port', '0')
    const [, url] = await says(/listens on (ws:\S+)\n/)
    const ws = new WebSocket(`${url}/p?token=HIDDEN`, { headers: { Authorization: 'HIDDEN' } })
    const closed = once(ws, 'close')
    await once(ws, 'open')
    await says(/handshake 1 \/p from 127\.0\.0\.1 .*Authorization=«present».*\n/)
    child.kill(signal)
    const { code, stdout } = await ended
    t.equal(code, 0)
    t.equal((await closed)[0], 1012)
    t.notMatch(stdout, 'HIDDEN')
  }
})

tap.test('the command line asks for the secret of its token file', async (t) => {
  const dir = t.testdir({ token: 'secret\n' })
  const { child, says } = run('--port', '0', '--mode', 'openclaw', '--token-file', `${dir}/token`)
  t.teardown(() => child.kill())
  const [, url = ''] = await says(/listens on (ws:\S+)\n/)
  const node = await openReadyNode({ url } as GatewayStub)
  t.match(node.hello, { ok: true })
  node.ws.terminate()
})

tap.test('help exits 0; bad flags 64; an unreadable token file 78; a taken port 69', async (t) => {
  const stub = await start(t)
  const cases = [
    [['--help'], 0],
    [['--port', 'x'], 64],
    [['--port', '65536'], 64],
    [['--mode', 'other'], 64],
    [['--behaviour', 'toString'], 64],
    [['--unknown'], 64],
    [['surplus'], 64],
    [['--port', '0', '--token-file', '/nonexistent'], 78],
    [['--port', String(stub.port)], 69],
  ] as const
  const results = await Promise.all(cases.map(([flags]) => run(...flags).ended))
  for (const [n, [flags, code]] of cases.entries()) {
    t.equal(results[n]?.code, code, flags.join(' '))
    if (code === 0) t.match(results[n]?.stdout, /^Usage: /)
    else t.match(results[n]?.stderr, /^gateway-stub: /)
  }
})
