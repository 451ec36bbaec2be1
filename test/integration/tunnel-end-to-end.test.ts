/** From a worker to the gateway and back: bytes are untouched, rules are kept, and both sides learn of every end. */

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import tap, { test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import { closeOf, rawFrame, readFrames } from '../kit/raw-frames.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig, type Rig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed, nextMessage } from '../kit/worker-client.ts'

const MESSAGE_BYTES_MAX = 26_214_400

const rig = await startRig({
  gateway: { messageBytesMax: 2 * MESSAGE_BYTES_MAX },
  set: ['limits.failuresPerAddress=0', 'limits.emptyFragments=10', 'limits.streamsPerPod=100'],
})
tap.teardown(() => rig.stop())
const pod = rig.createPod()
const token = rig.mint({ pod })

const openWith = async (at: Rig, bearer: string) => {
  const arrival = at.gateway.waitForConnection()
  const worker = await at.connect({ token: bearer })
  if (!worker.ok) throw new Error(`refused: ${JSON.stringify(worker.body)}`)
  return { socket: worker.socket, gateway: await arrival }
}
const open = () => openWith(rig, token)

/** A stream whose worker writes its frames by hand. */
const openRaw = async () => {
  const arrival = rig.gateway.waitForConnection()
  const { socket, status } = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines('/', [`Authorization: Bearer ${token}`]),
  })
  if (status !== 101) throw new Error(`refused with ${status}`)
  return { socket, gateway: await arrival }
}

test('text, binary and empty messages pass both ways as they are', async (t) => {
  const { socket, gateway } = await open()
  const payloads = ['text ✓', Buffer.from([0, 255, 1]), '', Buffer.alloc(0), 'x'.repeat(65_536)]
  for (const payload of payloads) {
    socket.send(payload)
    const { data, binary } = await nextMessage(socket)
    t.ok(data.equals(Buffer.from(payload)))
    t.equal(binary, typeof payload !== 'string')
  }
  socket.ping('up')
  t.equal(String((await once(socket, 'pong'))[0]), 'up', 'pings are answered by the other end')
  gateway.send('from the gateway')
  t.equal((await nextMessage(socket)).text, 'from the gateway')
  socket.close()
  await closed(socket)
})

test('a message of exactly 25 MiB passes both ways, in one frame or many', async (t) => {
  const { socket } = await open()
  const payload = Buffer.alloc(MESSAGE_BYTES_MAX, 7)
  socket.send(payload)
  t.ok((await nextMessage(socket)).data.equals(payload))
  socket.send(payload.subarray(0, 1000), { fin: false })
  socket.send(payload.subarray(1000), { fin: true })
  t.ok((await nextMessage(socket)).data.equals(payload))
  socket.terminate()
})

test('a message of one byte more is closed with 1009 at both ends, from either side', async (t) => {
  const tooBig = { code: 1009, reason: 'message_too_big' }
  const payload = Buffer.alloc(MESSAGE_BYTES_MAX + 1)
  const up = await open()
  up.socket.send(payload)
  t.same(await Promise.all([closed(up.socket), up.gateway.closed]), [tooBig, tooBig])

  const down = await open()
  down.gateway.send(payload)
  t.same(await Promise.all([closed(down.socket), down.gateway.closed]), [tooBig, tooBig])

  const parts = await open()
  parts.socket.send(payload.subarray(1), { fin: false })
  parts.socket.send(payload.subarray(0, 1), { fin: true })
  t.same(await Promise.all([closed(parts.socket), parts.gateway.closed]), [tooBig, tooBig])
})

/** Each breaks RFC 6455 §5; `isMasked` is what the sender has to do. */
const violations = (isMasked: boolean): Readonly<Record<string, Buffer>> => ({
  'a wrong mask bit': rawFrame({ payload: 'a', isMasked: !isMasked }),
  RSV1: rawFrame({ first: 0xc1, payload: 'a', isMasked }),
  RSV2: rawFrame({ first: 0xa1, payload: 'a', isMasked }),
  RSV3: rawFrame({ first: 0x91, payload: 'a', isMasked }),
  'opcode 3': rawFrame({ first: 0x83, isMasked }),
  'opcode 7': rawFrame({ first: 0x87, isMasked }),
  'opcode 11': rawFrame({ first: 0x8b, isMasked }),
  'opcode 15': rawFrame({ first: 0x8f, isMasked }),
  'a fragmented ping': rawFrame({ first: 0x09, isMasked }),
  'a fragmented close': rawFrame({ first: 0x08, isMasked }),
  'a long ping': rawFrame({ first: 0x89, payload: 'a'.repeat(126), isMasked }),
  'a continuation of nothing': rawFrame({ first: 0x80, payload: 'a', isMasked }),
  'a message inside a message': Buffer.concat([
    rawFrame({ first: 0x01, payload: 'a', isMasked }),
    rawFrame({ first: 0x81, payload: 'b', isMasked }),
  ]),
  'a 2-byte length for 1': rawFrame({ payload: 'a', lengthBytes: 2, isMasked }),
  'an 8-byte length for 200': rawFrame({ payload: 'a'.repeat(200), lengthBytes: 8, isMasked }),
})

test('a worker that breaks the framing is closed with 1002 at both ends', async (t) => {
  const violation = { code: 1002, reason: 'framing_violation' }
  const before = rig.gateway.receivedTotal()
  for (const [name, bytes] of Object.entries(violations(true))) {
    const { socket, gateway } = await openRaw()
    socket.write(bytes)
    t.same(closeOf(await readFrames(socket)), violation, name)
    t.same(await gateway.closed, violation, `${name}, at the gateway`)
  }
  t.equal(rig.gateway.receivedTotal(), before, 'and no message came of it')
})

test('a gateway that breaks the framing is closed with 1002 at both ends', async (t) => {
  const violation = { code: 1002, reason: 'framing_violation' }
  for (const [name, bytes] of Object.entries(violations(false))) {
    const { socket, gateway } = await openRaw()
    gateway.writeBytes(bytes)
    t.same(closeOf(await readFrames(socket)), violation, name)
    t.same(await gateway.closed, violation, `${name}, at the gateway`)
  }
})

test('empty fragments without end are closed with 1008', async (t) => {
  const { socket, gateway } = await openRaw()
  const exceeded = { code: 1008, reason: 'empty_fragments_exceeded' }
  const fragments = Array.from({ length: 11 }, (_, at) => rawFrame({ first: at === 0 ? 1 : 0 }))
  socket.write(Buffer.concat(fragments))
  t.same(closeOf(await readFrames(socket)), exceeded)
  t.same(await gateway.closed, exceeded)
})

test('a close passes with its code and reason, from either side', async (t) => {
  const up = await open()
  up.socket.close(4001, 'worker is done')
  t.same(await up.gateway.closed, { code: 4001, reason: 'worker is done' })
  t.equal((await closed(up.socket)).code, 4001)
  const down = await open()
  down.gateway.close(4002, 'gateway is done')
  t.same(await closed(down.socket), { code: 4002, reason: 'gateway is done' })
  t.equal((await down.gateway.closed).code, 4002)
})

test('an end that vanishes is reported to the other with a true code', async (t) => {
  const up = await open()
  up.socket.terminate()
  t.same(await up.gateway.closed, { code: 1001, reason: 'worker_gone' })
  const down = await open()
  down.gateway.terminate()
  t.same(await closed(down.socket), { code: 1013, reason: 'gateway_gone' })
})

test('only a perfect 101 of the gateway opens a tunnel', async (t) => {
  // CVE-2018-1002105: an upgrade that failed left an authenticated connection to be used.
  const smuggled = 'HTTP/1.1 200 OK\r\nX-Canary: smuggled\r\n\r\n'
  const statuses = [200, 204, 302, 400, 401, 426, 500, 503]
  const behaviors = [
    ...statuses.flatMap((status) =>
      [false, true].map((keepOpen) => ({
        kind: 'status' as const,
        status,
        headers: { 'X-Canary': 'header', Location: '/canary', 'Set-Cookie': 'canary=1' },
        body: 'canary body',
        trailing: smuggled,
        keepOpen,
      })),
    ),
    { kind: 'status' as const, status: 101, body: '', trailing: smuggled },
    { kind: 'wrong-accept' as const },
    { kind: 'extension' as const },
    { kind: 'subprotocol' as const, name: 'never-offered' },
    { kind: 'refuse' as const },
  ]
  for (const behavior of behaviors) {
    const name = JSON.stringify(behavior)
    rig.gateway.setBehavior(behavior, { connections: 1 })
    const arrival = rig.gateway.waitForConnection()
    const lines = upgradeLines('/', [`Authorization: Bearer ${token}`])
    const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`)
    const answer = await rawUpgrade({
      port: rig.port,
      localAddress: '127.0.0.11',
      // The worker does not wait: what it sends early must not reach such a gateway.
      bytes: Buffer.concat([head, Buffer.from('GET /canary HTTP/1.1\r\nHost: a\r\n\r\n')]),
    })
    t.equal(answer.status, 502, name)
    t.match(answer.body, /^\{"error":\{"type":"gateway_(refused|unreachable)"/, name)
    t.notMatch(answer.raw, /canary/i, `${name}: nothing of the gateway's`)
    t.match(answer.headers['retry-after'], /^\d+$/)
    t.match(answer.headers['connection'], /close/)
    if (!answer.socket.closed) answer.socket.resume()
    if (!answer.socket.readableEnded) await once(answer.socket, 'end')
    await (
      await arrival
    ).closed
    answer.socket.destroy()
  }
  t.equal(rig.gateway.connections.size, 0, 'both sockets are gone each time')
  await rig.untilReady()
})

test('a gateway that does not answer is given up after connectTimeout', async (t) => {
  const clock = new FakeClock()
  const timed = await startRig({ clock, set: ['gateway.connectTimeout=2s'] })
  t.teardown(() => timed.stop())
  const bearer = timed.mint({ pod: timed.createPod() })
  timed.gateway.setBehavior('stall')
  const arrival = timed.gateway.waitForConnection()
  const answer = timed.connect({ token: bearer })
  const connection = await arrival
  await clock.advanceAsync(2000)
  t.match(await answer, {
    ok: false,
    status: 502,
    body: { error: { type: 'gateway_unreachable' } },
  })
  await connection.closed
})

test('bytes of a worker wait for its admission and then arrive whole and in order', async (t) => {
  rig.api.pauseReviews()
  const before = rig.gateway.handshakes.length
  const lines = upgradeLines('/', [`Authorization: Bearer ${rig.mint({ pod })}`])
  const early = ['one', 'x'.repeat(200_000), 'three'].map((payload) => rawFrame({ payload }))
  const goodbye = rawFrame({ first: 0x88, payload: Buffer.from([0x03, 0xe8]) })
  const answer = rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    bytes: Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), ...early, goodbye]),
  })
  await rig.api.reviewArrived()
  t.equal(rig.gateway.handshakes.length, before, 'the gateway was not even asked')
  rig.api.releaseReviews()
  const frames = await readFrames((await answer).socket)
  t.same(
    frames.map(({ payload }) => payload.length),
    [3, 200_000, 5, 2],
  )
})

test('a worker that leaves during its review frees its place at once', async (t) => {
  const pending = async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets')
  const leave: Record<string, (socket: Socket) => unknown> = {
    'half-closed': (socket) => socket.end(),
    'half-closed behind more bytes': (socket) => socket.end(rawFrame({ payload: 'more' })),
    reset: (socket) => socket.resetAndDestroy(),
  }
  for (const [name, end] of Object.entries(leave)) {
    rig.api.pauseReviews()
    const lines = upgradeLines('/', [`Authorization: Bearer ${rig.mint({ pod })}`])
    const socket = connect({ port: rig.port, host: '127.0.0.1', localAddress: '127.0.0.11' })
    socket.on('error', () => {}).resume()
    socket.write(`${lines.join('\r\n')}\r\n\r\n`)
    await rig.api.reviewArrived()
    t.equal(await pending(), 1)
    end(socket)
    await waitUntil(async () => (await pending()) === 0)
    t.equal(rig.api.reviewsHeld(), 1, `${name}: its review is still under way`)
    rig.api.releaseReviews()
    socket.destroy()
  }
})

test('silent ends are pinged and live on; an end that does not answer is closed', async (t) => {
  const clock = new FakeClock()
  const quiet = await startRig({ clock, set: ['limits.idlePing=20s'] })
  t.teardown(() => quiet.stop())
  const bearer = quiet.mint({ pod: quiet.createPod() })
  const { socket, gateway } = await openWith(quiet, bearer)
  let pings = 0
  socket.on('ping', () => (pings += 1))
  for (let period = 0; period < 10; period += 1) {
    await clock.advanceAsync(20_000)
    // A round trip of real I/O, in which the pongs of both ends come back.
    await quiet.metrics()
  }
  // A pong is a sign of life, so that only every other period is one of silence.
  t.ok(pings >= 3 && pings <= 6, `${pings} pings`)
  t.equal(socket.readyState, socket.OPEN)
  socket.terminate()
  await gateway.closed

  const { socket: mute } = await rawUpgrade({
    port: quiet.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines('/', [`Authorization: Bearer ${bearer}`]),
  })
  const frames = readFrames(mute)
  await clock.advanceAsync(100_000)
  const all = await frames
  t.ok(
    all.some(({ first }) => first === 0x89),
    'it was pinged first',
  )
  t.same(closeOf(all), { code: 1001, reason: 'idle_timeout' })
})

test('the audit line of a stream has its byte counts', async (t) => {
  const { socket, gateway } = await openRaw()
  const opened = rig.audit.filter(({ event }) => event === 'k8s-auth-success').at(-1)
  const bytes = Buffer.concat([
    rawFrame({ payload: 'a'.repeat(100) }),
    rawFrame({ first: 0x88, payload: Buffer.from([0x03, 0xe8]) }),
  ])
  socket.write(bytes)
  await Promise.all([readFrames(socket), gateway.closed])
  const isOfStream = ({ event, streamId }: { event: string; streamId?: unknown }) =>
    event === 'k8s-session-closed' && streamId === opened?.['streamId']
  await waitUntil(() => rig.audit.some(isOfStream))
  t.match(rig.audit.find(isOfStream), {
    code: 'completed',
    podUid: pod.metadata.uid,
    bytesUp: bytes.length,
    bytesDown: 102 + 4,
  })
})
