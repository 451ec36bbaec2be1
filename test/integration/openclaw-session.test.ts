/** A node's session in the `openclaw` protocol, from its first challenge to its last byte. */

import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { test } from 'tap'
import { SECRET, startOpenClawRig, type OpenClawRig } from '../kit/openclaw-rig.ts'
import { rawFrame } from '../kit/raw-frames.ts'
import { connectFrame, createDevice } from '../kit/light-node.ts'

const valuesOf = (rawHeaders: readonly string[], name: string): readonly string[] =>
  rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name)

/** The gateway's connections that came for a worker. */
const workerConnections = (rig: OpenClawRig) =>
  [...rig.gateway.connections].filter(
    ({ handshake }) => valuesOf(handshake.rawHeaders, 'x-forwarded-for').length > 0,
  )

test('a node with nothing but its token is let in, and commands run on it', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const node = await rig.startNode('worker-a', '127.0.0.11')
  t.equal(node.answer?.ok, true)
  t.strictSame(rig.devices.names(), ['worker-a'], 'the gateway knows it by its pod name')
  const [connection] = workerConnections(rig)
  if (connection === undefined) throw new Error('no connection for a worker')
  const invoked = await rig.gateway.invoke(connection, 'system.which', { bins: ['uname'] })
  t.strictSame(invoked.payload, { bins: { uname: '/usr/bin/uname' } })
})

test('the gateway sees the worker’s address once, and nothing the worker could have said', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const headers = {
    'X-Forwarded-For': '127.0.0.1',
    'X-Forwarded-User': 'admin',
    Forwarded: 'for=1',
  }
  await rig.startNode('worker-a', '127.0.0.11', { headers })
  const [connection] = workerConnections(rig)
  const seen = connection?.handshake.rawHeaders ?? []
  t.strictSame(valuesOf(seen, 'x-forwarded-for'), ['127.0.0.11'])
  t.strictSame(valuesOf(seen, 'x-forwarded-user'), [
    'system:serviceaccount:openclaw:openclaw-worker',
  ])
  t.strictSame(valuesOf(seen, 'forwarded'), [])
  const operator = rig.gateway.handshakes[0]?.rawHeaders ?? []
  for (const name of ['x-forwarded-for', 'x-forwarded-user', 'origin', 'x-real-ip']) {
    t.strictSame(valuesOf(operator, name), [], `the operator channel is clean of ${name}`)
  }
})

test('a gateway of OpenClaw gets an assertion where the configuration asks for it', async (t) => {
  for (const [set, count] of [
    [[], 0],
    [['gateway.assertion=false'], 0],
    [['gateway.assertion=true'], 1],
  ] as const) {
    const rig = await startOpenClawRig({ set })
    t.teardown(rig.stop)
    await rig.startNode()
    const seen = workerConnections(rig)[0]?.handshake.rawHeaders ?? []
    t.equal(valuesOf(seen, 'x-openclaw-k8s-assertion').length, count, set.join())
    t.equal(valuesOf(seen, 'x-openclaw-k8s-pod-uid').length, 1, 'the identity comes all the same')
  }
})

test('the hello brings the worker no token of the gateway', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const { answer, frames } = await rig.startNode()
  t.match(answer?.payload, { type: 'hello-ok', protocol: 4, auth: { role: 'node', scopes: [] } })
  t.strictSame(Object.keys(answer?.payload?.['auth'] ?? {}).sort(), ['method', 'role', 'scopes'])
  t.notMatch(JSON.stringify(frames), /deviceToken|issuedAtMs/)
  t.notMatch(JSON.stringify(frames), new RegExp(SECRET))
})

test('a node that reconnects is the same device, with the secret instead of a bootstrap token', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const first = await rig.startNode()
  first.end()
  await first.closed
  for (let again = 0; again < 2; again += 1) {
    // Another node host in the same pod: its key is new, the pod's key is not.
    const node = await rig.openNode({ auth: { token: first.token } })
    t.equal((await node.connect())?.ok, true)
    node.end()
    await node.closed
  }
  t.equal(rig.devices.paired.size, 1)
  t.equal(rig.devices.listCalls('device.pair.setupCode').length, 1)
})

test('the token may come in a header, over TLS as the stock node sends it', async (t) => {
  const rig = await startOpenClawRig({ isTls: true })
  t.teardown(rig.stop)
  const pod = rig.createPod()
  const token = rig.mint({ pod })
  for (const headers of [
    { 'CF-Access-Client-Id': 'any', 'CF-Access-Client-Secret': token },
    { Authorization: `Bearer ${token}` },
  ]) {
    const node = await rig.openNode({ headers, auth: {}, ca: rig.ca })
    t.equal((await node.connect())?.ok, true)
    node.end()
    await node.closed
  }
})

test('what a node says too early reaches the gateway only after its hello, in order', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const pod = rig.createPod()
  const node = await rig.openNode()
  const { nonce, ts } = node.challenge
  const auth = { token: rig.mint({ pod }) }
  const frame = connectFrame(nonce, ts, { device: createDevice(), auth })
  const early = ['one', 'two'].map((id) => ({ type: 'req', id, method: 'node.event', params: {} }))
  for (const each of [frame, ...early]) node.socket.send(JSON.stringify(each))
  await node.next(({ id }) => id === 'two')
  const [connection] = workerConnections(rig)
  const said = rig.gateway.received
    .filter((message) => message.connection === connection)
    .map(({ data }) => (JSON.parse(data.toString()) as { readonly id: string }).id)
  t.strictSame(said, [frame.id, 'one', 'two'])
  t.strictSame(
    node.frames.filter(({ type }) => type === 'res').map(({ id }) => id),
    [frame.id, 'one', 'two'],
    'and its hello came before every answer',
  )
})

test('nothing of a worker that is refused ever reaches the gateway', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const pod = rig.createPod()
  const node = await rig.openNode()
  const { nonce, ts } = node.challenge
  const auth = { token: rig.mint({ pod, audiences: ['another'] }) }
  node.socket.send(JSON.stringify(connectFrame(nonce, ts, { device: createDevice(), auth })))
  node.socket.send(JSON.stringify({ type: 'req', id: 'x', method: 'node.event', params: {} }))
  t.match(await node.closed, { code: 1008, reason: 'audience_mismatch' })
  t.equal(workerConnections(rig).length, 0)
  t.notMatch(
    rig.gateway.received.map(({ data }) => data.toString()),
    [/node\.event/],
  )
})

test('the gateway refuses a second connect: whole, in fragments, or right after the first', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const second = (nonce: string, ts: number) =>
    connectFrame(nonce, ts, {
      device: createDevice(),
      auth: { token: SECRET },
      role: 'operator',
      scopes: ['operator.admin'],
    })
  const refused = { ok: false, error: { message: 'connect is only valid as the first request' } }

  const node = await rig.startNode()
  const { nonce, ts } = node.challenge
  t.match(await node.request(second(nonce, ts)), refused)
  const fragmented = second(nonce, ts)
  const text = JSON.stringify(fragmented)
  node.socket.send(text.slice(0, 100), { fin: false })
  node.socket.send(text.slice(100), { fin: true })
  t.match(await node.next(({ id }) => id === fragmented.id), refused)
  node.end()
  await node.closed

  const open = await rig.openNode()
  const first = connectFrame(open.challenge.nonce, open.challenge.ts, {
    device: createDevice(),
    auth: { token: node.token },
  })
  const behind = second(open.challenge.nonce, open.challenge.ts)
  const raw = Reflect.get(open.socket, '_socket') as Socket
  raw.write(
    Buffer.concat([first, behind].map((frame) => rawFrame({ payload: JSON.stringify(frame) }))),
  )
  t.match(await open.next(({ id }) => id === first.id), { ok: true })
  t.match(await open.next(({ id }) => id === behind.id), refused)
})

test('a connect in fragments is read like a whole one', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const node = await rig.openNode()
  const auth = { token: rig.mint({ pod: rig.createPod() }) }
  const { nonce, ts } = node.challenge
  const frame = connectFrame(nonce, ts, { device: createDevice(), auth, role: 'operator' })
  const text = JSON.stringify(frame)
  for (const [at, part] of [text.slice(0, 9), text.slice(9, 80), text.slice(80)].entries()) {
    node.socket.send(part, { fin: at === 2 })
  }
  t.match(await node.next(({ id }) => id === frame.id), { ok: false })
  t.match(await node.closed, { reason: 'role_not_allowed' })
})

test('a newer session of a pod displaces the older one, and dials when its socket is gone', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const older = await rig.startNode()
  const [held] = workerConnections(rig)
  const newer = await rig.openNode({ auth: { token: older.token } })
  const dials = rig.gateway.handshakes.length
  // The gateway has not handled the older one's close frame yet.
  held?.pause()
  const answered = newer.connect()
  await older.closed
  await fetch(`${rig.adminUrl}/readyz`)
  t.equal(rig.gateway.handshakes.length, dials, 'not dialed before the gateway saw it go')
  held?.resume()
  t.equal((await answered)?.ok, true)
  t.match(await older.closed, { code: 1012, reason: 'displaced' })
  t.equal(workerConnections(rig).length, 1)
  t.match(
    rig.audit.filter(({ event }) => event === 'k8s-session-closed').map(({ code }) => code),
    ['displaced'],
  )
})

test('of many simultaneous sessions of one pod the last one stays, with one device', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const pod = rig.createPod()
  const token = rig.mint({ pod })
  const nodes = await Promise.all(
    Array.from({ length: 6 }, () => rig.openNode({ auth: { token } })),
  )
  const answers = await Promise.all(nodes.map((node) => node.connect()))
  t.ok(answers.some((answer) => answer?.ok === true))
  const open = nodes.filter(({ socket }) => socket.readyState === 1)
  t.equal(open.length, 1)
  t.equal(workerConnections(rig).length, 1)
  t.equal(rig.devices.paired.size, 1)
})

test('each connection has its own nonce', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const nodes = await Promise.all(Array.from({ length: 4 }, () => rig.openNode()))
  t.equal(new Set(nodes.map(({ challenge }) => challenge.nonce)).size, 4)
  t.ok(nodes.every(({ challenge }) => challenge.nonce.length >= 32))
  for (const node of nodes) node.end()
})

test('frames larger than 64 KiB and binary frames end a handshake', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const large = await rig.openNode()
  large.socket.send('x'.repeat(65_537))
  t.match(await large.closed, { code: 1009, reason: 'frame_too_large' })
  const binary = await rig.openNode()
  binary.socket.send(randomBytes(8))
  t.match(await binary.closed, { code: 1003, reason: 'frame_binary' })
  const garbage = await rig.openNode()
  garbage.socket.send('{}')
  t.match(await garbage.closed, { code: 1008, reason: 'connect_malformed' })
})
