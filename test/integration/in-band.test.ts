/** A worker that shows its credential in the first frame meets the same checks and limits. */

import tap, { test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import { closeOf, rawFrame, readFrames } from '../kit/raw-frames.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig, type Rig } from '../kit/rig.ts'
import { closed, connectInBand, nextMessage } from '../kit/worker-client.ts'

const rig = await startRig({
  gateway: { behavior: 'subprotocol' },
  set: ['limits.failuresPerAddress=0', 'limits.preAuthFrameBytes=4096'],
})
tap.teardown(() => rig.stop())
const pod = rig.createPod()
const token = rig.mint({ pod })

const request = (changes: Readonly<Record<string, unknown>> = {}) => ({
  type: 'connect.request',
  authMode: 'k8s-sa',
  saToken: token,
  role: 'node',
  ...changes,
})

const offer = (frame: string | Buffer | Readonly<Record<string, unknown>>) =>
  connectInBand({ url: rig.url, localAddress: '127.0.0.11', frame })

/** A bare upgrade without a credential, answered with 101; `behind` comes with it. */
const open = async (at: Rig, behind: Buffer = Buffer.alloc(0), extra: readonly string[] = []) => {
  const head = Buffer.from(`${upgradeLines('/', extra).join('\r\n')}\r\n\r\n`)
  const answer = await rawUpgrade({
    port: at.port,
    localAddress: '127.0.0.11',
    bytes: Buffer.concat([head, behind]),
  })
  if (answer.status !== 101) throw new Error(`refused: ${answer.raw}`)
  return answer
}

/** What a worker gets that sends `bytes` after its 101 and then waits. */
const say = async (bytes: Buffer) => {
  const { socket } = await open(rig)
  socket.write(bytes)
  const frames = await readFrames(socket)
  const texts = frames.filter(({ first }) => first === 0x81)
  return { ...closeOf(frames), texts: texts.map(({ payload }) => payload.toString()), frames }
}

const refusalOf = (code: string): string =>
  JSON.stringify({ type: 'connect.response', success: false, code })

test('a connect.request is answered, consumed, and followed by the stream', async (t) => {
  const before = rig.gateway.receivedTotal()
  const arrival = rig.gateway.waitForHandshake()
  const outcome = await offer(request({ anything: 'else' }))
  if (outcome.kind !== 'message') throw new Error(outcome.kind)
  t.same(JSON.parse(outcome.message.text), { type: 'connect.response', success: true })
  const { headers } = await arrival
  t.equal(headers['x-openclaw-k8s-pod-uid'], pod.metadata.uid)
  t.equal(headers['x-forwarded-for'], '127.0.0.11')
  outcome.socket.send('first of the stream')
  t.equal((await nextMessage(outcome.socket)).text, 'first of the stream')
  t.equal(rig.gateway.receivedTotal(), before + 1, 'the gateway never saw the request')
  outcome.socket.close(1000)
  t.equal((await closed(outcome.socket)).code, 1000)
})

test('a connect.request can have an empty list of scopes but no scope', async (t) => {
  const empty = await offer(request({ scopes: [] }))
  if (empty.kind !== 'message') throw new Error(empty.kind)
  t.same(JSON.parse(empty.message.text), { type: 'connect.response', success: true })
  empty.socket.terminate()
  const before = rig.gateway.handshakes.length
  const cases = [
    ['scopes_not_allowed', ['operator.admin']],
    ['scopes_not_allowed', ['']],
    ['scopes_not_allowed', [null]],
    ['scopes_not_allowed', [[]]],
    ['frame_malformed', 'operator.admin'],
    ['frame_malformed', ''],
    ['frame_malformed', null],
    ['frame_malformed', { 0: 'operator.admin', length: 1 }],
  ] as const
  for (const [code, scopes] of cases) {
    const outcome = await offer(request({ scopes }))
    const name = `${code} ${JSON.stringify(scopes)}`
    if (outcome.kind !== 'message') throw new Error(`${name}: ${outcome.kind}`)
    t.equal(outcome.message.text, refusalOf(code), name)
    t.same(await closed(outcome.socket), { code: 1008, reason: code }, name)
  }
  t.equal(rig.gateway.handshakes.length, before, 'the gateway was not asked')
})

test('a refused connect.request is answered with the code, then closed with it', async (t) => {
  const before = rig.gateway.handshakes.length
  const cases = [
    ['role_missing', request({ role: undefined })],
    ['role_not_allowed', request({ role: 'operator' })],
    ['token_malformed', request({ saToken: 'a.b.c' })],
    ['token_expired', request({ saToken: rig.mint({ pod, expiresInS: -600 }) })],
    ['signature_invalid', request({ saToken: rig.mint({ pod, key: 'forged' }) })],
    ['audience_mismatch', request({ saToken: rig.mint({ pod, audiences: ['other'] }) })],
    ['frame_malformed', request({ saToken: '' })],
    ['frame_malformed', request({ saToken: 7 })],
    ['frame_malformed', request({ role: ['node'] })],
    ['frame_malformed', request({ authMode: 'token' })],
    ['frame_malformed', request({ type: 'connect' })],
    ['frame_malformed', 'not JSON'],
    ['frame_malformed', '[]'],
    ['frame_malformed', 'null'],
    ['frame_malformed', ''],
  ] as const
  for (const [code, frame] of cases) {
    const outcome = await offer(frame)
    const name = `${code} ${JSON.stringify(frame).slice(0, 40)}`
    if (outcome.kind !== 'message') throw new Error(`${name}: ${JSON.stringify(outcome)}`)
    t.equal(outcome.message.text, refusalOf(code), name)
    t.same(await closed(outcome.socket), { code: 1008, reason: code }, name)
  }
  t.equal(rig.gateway.handshakes.length, before)
})

test('a fault of the gateway closes with 1013, so that the worker comes back', async (t) => {
  rig.gateway.setBehavior('refuse', { connections: 1 })
  const outcome = await offer(request())
  if (outcome.kind !== 'message') throw new Error(outcome.kind)
  t.equal(outcome.message.text, refusalOf('gateway_unreachable'))
  t.same(await closed(outcome.socket), { code: 1013, reason: 'gateway_unreachable' })
  await rig.untilReady()
})

test('the first frame must be text, small, masked and lawful', async (t) => {
  const before = rig.gateway.handshakes.length
  const good = JSON.stringify(request())
  const cases = [
    [1003, 'frame_binary', rawFrame({ first: 0x82, payload: good })],
    [1009, 'frame_too_large', rawFrame({ payload: 'a'.repeat(4096) })],
    // By its header alone: nothing waits for 8 EiB to arrive.
    [1009, 'frame_too_large', rawFrame({ toldLength: 2 ** 40, lengthBytes: 8 })],
    [1002, 'framing_violation', rawFrame({ payload: good, isMasked: false })],
    [1002, 'framing_violation', rawFrame({ first: 0x80, payload: good })],
    [1002, 'framing_violation', rawFrame({ first: 0xc1, payload: good })],
    [1002, 'framing_violation', rawFrame({ first: 0x83, payload: good })],
    [1002, 'framing_violation', rawFrame({ payload: 'a', lengthBytes: 2 })],
    [1002, 'framing_violation', rawFrame({ first: 0x09, payload: '' })],
    [1002, 'framing_violation', rawFrame({ first: 0x89, payload: 'a'.repeat(126) })],
    [1007, 'invalid_utf8', rawFrame({ payload: Buffer.from([0xc3, 0x28]) })],
    [1002, 'framing_violation', rawFrame({ first: 0x88, payload: Buffer.from([0x03, 0xed]) })],
    [1007, 'invalid_utf8', rawFrame({ first: 0x88, payload: Buffer.from([3, 0xe8, 0xff]) })],
  ] as const
  for (const [status, code, bytes] of cases) {
    const { code: close, reason } = await say(bytes)
    t.same([close, reason], [status, code], `${code} for ${bytes.subarray(0, 4).toString('hex')}`)
  }
  // The limit holds for fragments together, however small each is.
  const fragments = Array.from({ length: 50 }, (_, at) =>
    rawFrame({ first: at === 0 ? 0x01 : 0x00, payload: 'a'.repeat(100) }),
  )
  t.equal((await say(Buffer.concat(fragments))).code, 1009)
  t.equal(rig.gateway.handshakes.length, before)
})

test('a fragmented first message is read, and pings before it are answered', async (t) => {
  const text = JSON.stringify(request())
  const { socket } = await open(rig)
  const bytes = Buffer.concat([
    rawFrame({ first: 0x89, payload: 'one' }),
    rawFrame({ first: 0x01, payload: text.slice(0, 10) }),
    rawFrame({ first: 0x89, payload: 'two' }),
    rawFrame({ first: 0x00, payload: '' }),
    rawFrame({ first: 0x80, payload: text.slice(10) }),
    rawFrame({ first: 0x88, payload: Buffer.from([0x03, 0xe8]) }),
  ])
  for (const byte of bytes) socket.write(Buffer.of(byte))
  const frames = await readFrames(socket)
  t.same(
    frames.map(({ first, payload }) => [first, payload.toString('latin1')]),
    [
      [0x8a, 'one'],
      [0x8a, 'two'],
      [0x81, JSON.stringify({ type: 'connect.response', success: true })],
      [0x88, '\x03\xe8'],
    ],
  )
})

test('bytes after the first frame reach the gateway intact, however they arrive', async (t) => {
  const first = rawFrame({ payload: JSON.stringify(request()) })
  const payloads = ['one', 'x'.repeat(70_000), 'three']
  const stream = Buffer.concat([
    ...payloads.map((payload) => rawFrame({ payload })),
    rawFrame({ first: 0x88, payload: Buffer.from([0x03, 0xe8]) }),
  ])
  const received = async (frames: ReturnType<typeof readFrames>) =>
    (await frames)
      .filter(({ first: head }) => head === 0x81)
      .map(({ payload }) => payload.toString())
  const accepted = JSON.stringify({ type: 'connect.response', success: true })

  const together = await open(rig, Buffer.concat([first, stream]))
  t.same(await received(readFrames(together.socket)), [accepted, ...payloads], 'with the upgrade')

  const apart = await open(rig)
  apart.socket.write(Buffer.concat([first, stream]))
  t.same(await received(readFrames(apart.socket)), [accepted, ...payloads], 'in one segment')
})

test('no byte of a worker reaches the gateway before it is admitted', async (t) => {
  const before = { handshakes: rig.gateway.handshakes.length, total: rig.gateway.receivedTotal() }
  rig.api.pauseReviews()
  const fresh = rig.mint({ pod })
  const { socket } = await open(rig)
  socket.write(
    Buffer.concat([
      rawFrame({ payload: JSON.stringify(request({ saToken: fresh })) }),
      rawFrame({ payload: 'early' }),
    ]),
  )
  await rig.api.reviewArrived()
  t.equal(rig.gateway.handshakes.length, before.handshakes)
  const message = rig.gateway.waitForMessage()
  rig.api.releaseReviews()
  t.equal((await message).data.toString(), 'early')
  t.equal(rig.gateway.receivedTotal(), before.total + 1)
  socket.destroy()
})

test('a worker that closes or leaves before its first message is let go', async (t) => {
  const before = rig.gateway.handshakes.length
  const { code, texts } = await say(
    rawFrame({ first: 0x88, payload: Buffer.from([0x03, 0xe9, 0x62, 0x79, 0x65]) }),
  )
  t.same([code, texts], [1001, []], 'its own close is answered')
  const { socket } = await open(rig)
  socket.end()
  t.same(closeOf(await readFrames(socket)), { code: 1001, reason: 'worker_gone' }, 'half-closed')
  t.equal(rig.gateway.handshakes.length, before)
})

test('a worker that says nothing is closed when the handshake time is up', async (t) => {
  const clock = new FakeClock()
  const timed = await startRig({ clock, set: ['limits.handshakeTimeout=5s'] })
  t.teardown(() => timed.stop())
  timed.createPod()
  const { socket } = await open(timed)
  const frames = readFrames(socket)
  await clock.advanceAsync(4999)
  t.notOk(socket.readableEnded)
  await clock.advanceAsync(1)
  const all = await frames
  t.equal(all[0]?.payload.toString(), refusalOf('handshake_timeout'))
  t.same(closeOf(all), { code: 1008, reason: 'handshake_timeout' })
  t.equal(timed.gateway.handshakes.length, 0)
})

test('half a first frame does not extend the handshake time', async (t) => {
  const clock = new FakeClock()
  const timed = await startRig({ clock, set: ['limits.handshakeTimeout=5s'] })
  t.teardown(() => timed.stop())
  const { socket } = await open(timed)
  const frames = readFrames(socket)
  const bytes = rawFrame({ payload: 'a'.repeat(100) })
  for (const byte of bytes.subarray(0, 4)) {
    socket.write(Buffer.of(byte))
    await clock.advanceAsync(1250)
  }
  t.same(closeOf(await frames), { code: 1008, reason: 'handshake_timeout' })
})

test('the offered subprotocol is confirmed at once, for the gateway to agree or refuse', async (t) => {
  const { headers, socket } = await open(rig, Buffer.alloc(0), ['Sec-WebSocket-Protocol: chat, b'])
  t.equal(headers['sec-websocket-protocol'], 'chat')
  const arrival = rig.gateway.waitForHandshake()
  socket.write(rawFrame({ payload: JSON.stringify(request()) }))
  t.equal((await arrival).headers['sec-websocket-protocol'], 'chat', 'no other could be kept to')
  socket.destroy()

  for (const behavior of ['accept', { kind: 'subprotocol', name: 'b' }] as const) {
    rig.gateway.setBehavior(behavior, { connections: 1 })
    const other = await open(rig, Buffer.alloc(0), ['Sec-WebSocket-Protocol: chat, b'])
    const frames = readFrames(other.socket)
    other.socket.write(rawFrame({ payload: JSON.stringify(request()) }))
    t.same(closeOf(await frames), { code: 1013, reason: 'gateway_refused' })
  }
})
