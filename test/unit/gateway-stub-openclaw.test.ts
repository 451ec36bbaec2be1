/** The gateway stub speaks OpenClaw's protocol as the real gateway does. */

import { judgeConnect } from '@openclaw-k8s/gateway-stub/openclaw-connect.ts'
import { readConnect } from '@openclaw-k8s/gateway-stub/openclaw-frames.ts'
import tap from 'tap'
import {
  start,
  openNode,
  openReadyNode,
  nodeConnect,
  requestFrame,
  type ConnectOptions,
} from '../kit/stub-clients.ts'

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

tap.test(
  'a connect that fails a check is refused with its code, and closed as the gateway does',
  async (t) => {
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
      ['PROTOCOL_MISMATCH', {}, (p) => ({ ...p, minProtocol: 2, maxProtocol: 2 })],
      ['INVALID_HANDSHAKE', {}, (p) => ({ ...p, client: undefined })],
      ['INVALID_HANDSHAKE', {}, (p) => ({ ...p, scopes: [1] })],
      ['INVALID_HANDSHAKE', {}, (p) => ({ ...p, device: { id: 1 } })],
    ]
    for (const [code, options, change = (params: Params) => params] of cases) {
      const node = await openNode(stub)
      node.ws.send(requestFrame('9', 'connect', change(nodeConnect(node.challenge, options))))
      t.match(await node.nextFrame(), { id: '9', ok: false, error: { details: { code } } }, code)
      t.equal((await node.closed).code, code === 'PROTOCOL_MISMATCH' ? 1002 : 1008)
    }
  },
)

tap.test(
  'a gateway of another age refuses what it does not know, and takes no older node',
  async (t) => {
    const stub = await start(t, {
      ...openclaw,
      unknownFields: ['client.buildId', 'workerRuns'],
      protocols: { spoken: 4, nodeMin: 4 },
    })
    const unknown = await openNode(stub)
    const params = nodeConnect(unknown.challenge)
    const newer = { ...params, workerRuns: {}, client: { ...params.client, buildId: 'x' } }
    unknown.ws.send(requestFrame('1', 'connect', newer))
    const message =
      "invalid connect params: at root: unexpected property 'workerRuns'; at /client: unexpected property 'buildId'"
    t.match(await unknown.nextFrame(), { ok: false, error: { code: 'INVALID_REQUEST', message } })
    t.equal((await unknown.closed).code, 1008)
    const older = await openNode(stub)
    const offer = { ...nodeConnect(older.challenge), minProtocol: 3, maxProtocol: 3 }
    older.ws.send(requestFrame('1', 'connect', offer))
    t.match(await older.nextFrame(), {
      error: { details: { expectedProtocol: 4, minimumProbeProtocol: 4 } },
    })
    t.equal((await older.closed).code, 1002)
    const current = await openNode(stub)
    current.ws.send(requestFrame('1', 'connect', nodeConnect(current.challenge)))
    t.match(await current.nextFrame(), { ok: true })
  },
)

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

tap.test('the proof of a real node is accepted, and nothing else', (t) => {
  // Captured from openclaw 2026.9.6; the token comes from a lab.
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

tap.test(
  'a first message that is not a connect closes 1008, one over 64 KiB closes 1009',
  async (t) => {
    const stub = await start(t, openclaw)
    type Challenge = Parameters<typeof nodeConnect>[0]
    // Each would be let in except for the one thing that is wrong with it.
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
  },
)

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

tap.test('a tick goes only to clients that said hello, and only on demand', async (t) => {
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
  t.match(await stranger.nextFrame(), { error: { details: { code: 'AUTH_TOKEN_MISMATCH' } } })
  const other = await openNode(stub)
  other.ws.send(requestFrame('1', 'connect', { ...connect, auth: { password: 'secret' } }))
  t.match(await other.nextFrame(), { error: { details: { code: 'AUTH_TOKEN_MISSING' } } })
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
