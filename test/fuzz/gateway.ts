/** A gateway that says anything: a worker gets a clean refusal or a lawful stream, and nothing else. */

import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import { once } from 'node:events'
import * as fc from 'fast-check'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { CODES } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { WebSocket, type RawData } from 'ws'
import { waitForProcess } from '../kit/wait.ts'
import { startOpenClawRig, SECRET } from '../kit/openclaw-rig.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import { startRig } from '../kit/rig.ts'
import { connectFrame, connectLightNode, createDevice } from '../kit/light-node.ts'
import { frames, lawfulFrames } from './bytes.ts'
import { Silent, playCourse } from './connection.ts'
import { GATEWAY_SECRET, mischief, startMangler, type Mangler } from './mangler.ts'
import { POD_ADDRESS } from './fuzz-rig.ts'
import { promiseOf, type Property, type Target } from './target.ts'
import { askWs } from './ws-receiver.ts'

/** What the checks need of a rig with a mangled gateway. */
type Rig = Pick<Awaited<ReturnType<typeof startRig>>, 'metrics' | 'stop'>

const NO_LIMITS = ['limits.failuresPerAddress=0', 'limits.streamsPerPod=1024', 'limits.idlePing=1h']
const SETTLE_MS_MAX = 20_000
/** A node that receives nothing more gives up. */
const NODE_MS_MAX = 300
const HEAD_END = '\r\n\r\n'
const STATUSES = new Set<number>(Object.values(CODES).map(({ status }) => status))

const assertUnchanged = async (
  rig: Rig,
  mangler: Mangler,
  socketsAtRest: number,
): Promise<void> => {
  await waitForProcess('an end of all streams', SETTLE_MS_MAX, async () => {
    const metrics = await rig.metrics()
    return (
      metrics.get('openclaw_k8s_streams') === 0 && metrics.get('openclaw_k8s_pending_sockets') === 0
    )
  })
  await waitForProcess(
    'an end of all connections to the gateway',
    SETTLE_MS_MAX,
    () => mangler.openSockets() <= socketsAtRest,
  )
  strictEqual((await rig.metrics()).get('openclaw_k8s_uncaught_peer_errors_total') ?? 0, 0)
}

/** A refusal comes from our table and a stream is lawful; neither's head has words of the gateway. */
const checkStream = (received: Buffer): void => {
  if (received.length === 0) return
  const end = received.indexOf(HEAD_END)
  const head = received.toString('latin1', 0, end)
  const [, status = ''] = /^HTTP\/1\.1 (\d{3}) /.exec(head) ?? []
  if (status !== '101') {
    ok(STATUSES.has(Number(status)), head.slice(0, 40))
    ok(!received.includes(GATEWAY_SECRET), "the gateway's words")
    return
  }
  ok(!head.includes(GATEWAY_SECRET), "the gateway's words")
  const { objection } = askWs(received.subarray(end + HEAD_END.length), {
    masked: false,
    isUtf8Checked: false,
  })
  // A separate promise checks close codes.
  if (objection !== 'WS_ERR_INVALID_CLOSE_CODE') strictEqual(objection, undefined)
}

const streamProperty = (mangler: Mangler, port: number, token: string, silent: Silent): Property =>
  promiseOf(
    {
      promise: 'whatever a gateway says, a worker gets a clean refusal or a lawful stream',
      runs: 30,
    },
    fc.array(
      fc.record({
        plan: mischief(0.6),
        said: lawfulFrames(true, 4).filter((wire) => wire.length < 20_000),
        ending: fc.constantFrom(
          'fin' as const,
          'answered reset' as const,
          'answered reset' as const,
          'silence' as const,
        ),
        turns: fc.nat(3),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    async (group) => {
      mangler.plan(group.map(({ plan }) => plan))
      await Promise.all(
        group.map(async ({ said, ending, turns }) => {
          const head = [
            'GET / HTTP/1.1',
            'Host: a',
            'Connection: Upgrade',
            'Upgrade: websocket',
            'Sec-WebSocket-Version: 13',
            'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
            'Sec-WebSocket-Protocol: a',
            `Authorization: Bearer ${token}`,
          ].join('\r\n')
          const sent = Buffer.concat([Buffer.from(head + HEAD_END), said])
          const course = { ending, sizes: [sent.length], turns, sentShare: 1 }
          checkStream(await playCourse({ port, localAddress: POD_ADDRESS }, sent, course, silent))
        }),
      )
    },
  )

const openStream = async () => {
  const stub = await startGatewayStub()
  const mangler = await startMangler(stub.port)
  const rig = await startRig({
    set: [...NO_LIMITS, 'gateway.connectTimeout=500ms', `gateway.url=${mangler.url}`],
  })
  const token = rig.mint({ pod: rig.createPod() })
  const silent = new Silent(16)
  return {
    properties: [streamProperty(mangler, rig.port, token, silent)],
    async settle() {
      silent.end()
      mangler.plan([])
      await assertUnchanged(rig, mangler, 0)
      const worker = await rig.connect({ token })
      ok(worker.ok)
      worker.socket.terminate()
      await assertUnchanged(rig, mangler, 0)
    },
    async close() {
      await rig.stop()
      await mangler.stop()
      await stub.close()
    },
  }
}

const METHODS = [
  'device.pair.list',
  'device.pair.setupCode',
  'device.pair.remove',
  'node.pair.list',
  'node.pair.approve',
] as const

/** What the gateway answers an operator instead of the truth. */
const answer = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom<unknown>(
    {},
    { paired: [{ deviceId: '__proto__' }] },
    { pending: [{ requestId: 1 }] },
    { setupCode: 'e30' },
    { setupCode: '%' },
    { setupCode: 'bnVsbA' },
    { pending: [{ requestId: 'a', nodeId: 'b', commands: ['*'] }] },
    { paired: Array.from({ length: 500 }, () => ({ deviceId: 'a' })) },
  ),
)

const REFUSALS = [
  'PAIRING_REQUIRED',
  'AUTH_TOKEN_MISMATCH',
  'DEVICE_AUTH_SIGNATURE_INVALID',
  'constructor',
  '',
  'x'.repeat(2000),
] as const

type Answers = {
  readonly answers: Readonly<Record<string, unknown>>
  readonly refusal: string | undefined
}

const HONEST: Answers = { answers: {}, refusal: undefined }

const operatorWire = fc.oneof(
  frames(false).filter((wire) => wire.length < 2000),
  answer.map((payload) => textFrame({ type: 'event', event: 'device.pair.requested', payload })),
  answer.map((payload) => textFrame({ type: 'res', id: 'operator', ok: true, payload })),
)

/** An unmasked text frame of at most 65,535 bytes. */
const textFrame = (content: unknown): Buffer => {
  const payload = Buffer.from(JSON.stringify(content))
  const size =
    payload.length < 126 ? [payload.length] : [126, payload.length >> 8, payload.length & 255]
  return Buffer.concat([Buffer.from([0x81, ...size]), payload])
}

/** What a node sees of its own session, from the challenge to its end. */
const playNode = async (url: string, token: string): Promise<void> => {
  const socket = new WebSocket(url, { perMessageDeflate: false, localAddress: POD_ADDRESS })
  const device = createDevice()
  const texts: string[] = []
  let objection: string | undefined
  let status = 101
  socket.on('error', (error: NodeJS.ErrnoException) => (objection ??= error.code ?? error.message))
  socket.on('unexpected-response', (request, response) => {
    status = response.statusCode ?? 0
    request.destroy()
  })
  socket.on('message', (raw: RawData) => {
    texts.push((raw as Buffer).toString())
    if (texts.length > 1) return endSoon(socket)
    const { nonce, ts } = (JSON.parse(texts[0] ?? '') as { payload: { nonce: string; ts: number } })
      .payload
    socket.send(
      JSON.stringify({ ...connectFrame(nonce, ts, { device, auth: { token } }), id: 'connect-1' }),
    )
  })
  const closed = once(socket, 'close')
  const timer = setTimeout(() => socket.terminate(), NODE_MS_MAX)
  await closed.catch(() => {})
  clearTimeout(timer)
  if (status !== 101) return ok(STATUSES.has(status), `${status}`)
  // Text of the gateway is relayed as it is, and separate promises check close codes.
  const isTolerated = ['WS_ERR_INVALID_CLOSE_CODE', 'WS_ERR_INVALID_UTF8', 'ECONNRESET'].includes(
    objection ?? '',
  )
  if (!isTolerated) ok(objection?.startsWith('WS_ERR') !== true, `${objection}`)
  checkHello(texts[1])
}

/** After some more of what the gateway says. */
const endSoon = (socket: WebSocket, turns = 5): void =>
  void setImmediate(() => (turns > 0 ? endSoon(socket, turns - 1) : socket.terminate()))

const checkHello = (text: string | undefined): void => {
  if (text === undefined) return
  const hello = JSON.parse(text) as {
    id?: string
    ok?: boolean
    payload?: { auth?: Readonly<Record<string, unknown>> }
  }
  strictEqual(hello.id, 'connect-1')
  if (hello.ok !== true) return
  const { auth = {} } = hello.payload ?? {}
  deepStrictEqual([auth['role'], auth['scopes']], ['node', []])
  deepStrictEqual(
    Object.keys(auth).filter((key) => !['method', 'role', 'scopes'].includes(key)),
    [],
  )
}

const openOpenClaw = async () => {
  const devices = createPairedDevices(SECRET)
  let says = HONEST
  const { methods = {}, pair, ...gateway } = devices.gateway
  const stub = await startGatewayStub({
    ...gateway,
    methods: Object.fromEntries(
      Object.entries(methods).map(([method, run]) => [
        method,
        (params, connection) =>
          Object.hasOwn(says.answers, method) ? says.answers[method] : run(params, connection),
      ]),
    ),
    pair: (connect, params, connection) =>
      connect.role === 'node' && says.refusal !== undefined
        ? { code: says.refusal, message: GATEWAY_SECRET }
        : pair?.(connect, params, connection),
  })
  const mangler = await startMangler(stub.port)
  const rig = await startOpenClawRig({ set: [...NO_LIMITS, `gateway.url=${mangler.url}`] })
  const token = rig.mint({ pod: rig.createPod() })
  const property = promiseOf(
    {
      promise:
        'whatever an OpenClaw gateway says, a node gets a refusal or a session with its own role',
      runs: 15,
    },
    fc.record({
      plans: fc.oneof(
        { weight: 4, arbitrary: mischief(0.05).map((one) => [one]) },
        { weight: 1, arbitrary: fc.tuple(mischief(0), mischief(0)) },
      ),
      says: fc.oneof(
        { weight: 3, arbitrary: fc.constant(HONEST) },
        {
          weight: 1,
          arbitrary: fc.record({
            answers: fc.dictionary(fc.constantFrom(...METHODS), answer, { maxKeys: 1 }),
            refusal: fc.option(fc.constantFrom(...REFUSALS), { nil: undefined, freq: 1 }),
          }),
        },
      ),
      isTold: fc.nat(3).map((n) => n === 0),
      told: operatorWire,
    }),
    async ({ plans, says: next, isTold, told }) => {
      says = next
      mangler.plan(plans)
      if (isTold) mangler.injectToOperator(told)
      await Promise.all(plans.map(() => playNode(rig.url, token)))
    },
  )
  const isReady = async () => (await fetch(`${rig.adminUrl}/readyz`)).ok
  await waitForProcess('readiness', SETTLE_MS_MAX, isReady)
  return {
    properties: [property],
    async settle() {
      says = HONEST
      mangler.plan([])
      await waitForProcess('the operator channel', SETTLE_MS_MAX, isReady)
      // The operator's channel is one connection, seen from both its sides.
      await assertUnchanged(rig, mangler, 2)
      const node = await connectLightNode({
        url: rig.url,
        localAddress: POD_ADDRESS,
        device: createDevice(),
        auth: { token },
      })
      node.end()
      await assertUnchanged(rig, mangler, 2)
    },
    async close() {
      await rig.stop()
      await mangler.stop()
      await stub.close()
    },
  }
}

/** In this process, since a sidecar in a separate process takes every loopback peer for its gateway's host. */
export const gatewayTarget: Target = {
  name: 'gateway',
  async open() {
    const rigs = await Promise.all([openStream(), openOpenClaw()])
    return {
      properties: rigs.flatMap((rig) => rig.properties),
      settle: async () => void (await Promise.all(rigs.map(async (rig) => rig.settle()))),
      close: async () => void (await Promise.all(rigs.map(async (rig) => rig.close()))),
    }
  },
}
