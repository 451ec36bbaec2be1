/** Requests that get no stream, or no more than a node's rights, whatever credentials the worker has. */

import assert from 'node:assert/strict'
import { test } from './bounded-test.ts'
import { GATEWAY_SECRET } from './gateway.ts'
import {
  connectFrame,
  createDevice,
  type ConnectParams,
  type LightNode,
} from '../kit/light-node.ts'
import { PAUSING_CODES } from './real-node.ts'
import { headerValues } from './relay.ts'
import type { ProductRig, RigPod } from './product-rig.ts'

const REFUSED: Readonly<Record<string, (pod: RigPod) => Partial<ConnectParams>>> = {
  'the operator role': () => ({ role: 'operator' }),
  'the operator role of a backend client': () => ({
    role: 'operator',
    clientId: 'gateway-client',
    mode: 'backend',
    scopes: ['operator.admin'],
  }),
  'scopes of a node': () => ({ scopes: ['operator.admin'] }),
  'another client than a node host': () => ({ clientId: 'openclaw-control-ui', mode: 'webchat' }),
  'a device id that is not of the key': () => ({ deviceId: createDevice().id }),
  "the gateway's own secret as a worker's token": () => ({ auth: { token: GATEWAY_SECRET } }),
  "the gateway's own secret as a password alone": () => ({ auth: { password: GATEWAY_SECRET } }),
  'a bootstrap token of the worker': () => ({ auth: { bootstrapToken: 'whatever' } }),
  'no credential at all': () => ({ auth: {} }),
}

const OPERATOR_CALLS = ['config.get', 'node.list', 'node.invoke', 'device.pair.list']

const assertNodeRightsOnly = async (node: LightNode): Promise<void> => {
  for (const method of [...OPERATOR_CALLS, 'device.pair.setupCode']) {
    const answer = await node.call(method)
    assert.equal(answer?.ok, false, method)
    assert.match(answer.error?.message ?? '', /unauthorized role/u, method)
  }
}

/** An operator's `connect` as the gateway itself would accept it from its owner. */
const operatorConnect = (node: LightNode) =>
  connectFrame(node.challenge.nonce, node.challenge.ts, {
    device: createDevice(),
    role: 'operator',
    clientId: 'gateway-client',
    mode: 'backend',
    scopes: ['operator.admin'],
    auth: { token: GATEWAY_SECRET, password: GATEWAY_SECRET },
  })

export const testRefusals = (rig: ProductRig): void => {
  const connectionsOf = ({ address }: RigPod) =>
    rig.relay.connections.filter((connection) =>
      headerValues(connection, 'x-forwarded-for').includes(address),
    )

  /** Not let in, without an answer that makes a node wait for ever, and without any request to the gateway. */
  const assertRefused = async (
    pod: RigPod,
    node: LightNode,
    params: Partial<ConnectParams> = {},
  ) => {
    const answer = await node.connect(params)
    assert.notEqual(answer?.ok, true, 'let in')
    const { code } = await node.closed
    assert.ok([1008, 1013, 1002].includes(code), `closed with ${code}`)
    for (const pausing of PAUSING_CODES) {
      assert.ok(!JSON.stringify(node.frames).includes(pausing), pausing)
    }
    assert.equal(connectionsOf(pod).length, 0, 'the gateway was dialed')
    return answer?.error?.details?.['code']
  }

  for (const [what, params] of Object.entries(REFUSED)) {
    test(`refused: ${what}`, async () => {
      const pod = rig.createPod(`refused-${Object.keys(REFUSED).indexOf(what)}`)
      await assertRefused(pod, await rig.openLightNode(pod), params(pod))
    })
  }

  test('refused: the replayed proof of another connection, under its nonce or under the new one', async () => {
    const device = createDevice()
    const pod = rig.createPod('replay-victim')
    const token = pod.mint()
    const victim = await rig.connectLightNode(pod, { device, auth: { token } })
    const { nonce, ts } = victim.challenge
    const taken = connectFrame(nonce, ts, { device, auth: { token } }).params.device
    victim.end()

    const connected = connectionsOf(pod).length
    for (const replayed of [nonce, undefined]) {
      const thief = await rig.openLightNode(pod, { device, auth: { token } })
      const proof = { ...taken, nonce: replayed ?? thief.challenge.nonce }
      const answer = await thief.connect({ proof })
      assert.notEqual(answer?.ok, true)
      await thief.closed
    }
    assert.equal(connectionsOf(pod).length, connected)
  })

  test('refused: a proof signed at another time than now', async () => {
    const pod = rig.createPod('refused-skewed')
    const node = await rig.openLightNode(pod)
    const { nonce } = node.challenge
    const ts = Date.now() - 10 * 60_000
    const token = pod.mint()
    const device = createDevice()
    const { signature } = connectFrame(nonce, ts, { device, auth: { token } }).params.device
    const proof = { nonce, signedAt: ts, signature }
    await assertRefused(pod, node, { device, auth: { token }, proof })
  })

  test('refused: another token in the frame than at the upgrade', async () => {
    const pod = rig.createPod('refused-mismatch')
    const headers = { authorization: `Bearer ${pod.mint()}` }
    const node = await rig.openLightNode(pod, { headers })
    await assertRefused(pod, node, { auth: { token: GATEWAY_SECRET } })
  })

  test("refused: another pod's token, shown from this pod's address", async () => {
    const robbed = rig.createPod('robbed')
    const thief = rig.createPod('thief')
    const node = await rig.openLightNode(thief)
    await assertRefused(robbed, node, { auth: { token: robbed.mint() } })
    assert.equal(connectionsOf(thief).length, 0)
  })

  test('refused: a browser, known by its Origin', async () => {
    const pod = rig.createPod('refused-origin')
    const node = await rig.openLightNode(pod, { headers: { origin: 'https://evil.example' } })
    await node.closed
    assert.equal(node.frames.length, 0)
    assert.equal(connectionsOf(pod).length, 0)
  })

  test('refused: HTTP, with every credential, to every path the gateway serves', async () => {
    const pod = rig.createPod('refused-http')
    const base = pod.url.replace('ws:', 'http:')
    const paths = [
      '/',
      '/healthz',
      '/tools/invoke',
      '/sessions/main/history',
      '/api/channels',
      '/j/abc',
    ]
    for (const path of paths) {
      for (const token of [pod.mint(), GATEWAY_SECRET]) {
        for (const method of ['GET', 'POST']) {
          const headers = { authorization: `Bearer ${token}`, 'x-forwarded-user': 'admin' }
          const { status } = await fetch(base + path, { method, headers })
          assert.ok(status >= 400, `${method} ${path}: ${status}`)
        }
      }
    }
    const lines = rig.relay.connections.map(({ head }) => head[0])
    assert.deepEqual([...new Set(lines)], ['GET / HTTP/1.1'])
  })

  test('a refused upgrade says in at most 2 KiB of JSON what to do', async () => {
    const pod = rig.createPod('refused-json')
    const headers = {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': Buffer.alloc(16).toString('base64'),
      origin: 'https://evil.example',
    }
    const { status, body } = await upgrade(pod.url.replace('ws:', 'http:'), headers)
    assert.ok(status >= 400)
    assert.ok(Buffer.byteLength(body) <= 2048)
    const { error } = JSON.parse(body) as { error?: { type?: unknown; message?: unknown } }
    assert.equal(typeof error?.type, 'string')
    assert.equal(typeof error?.message, 'string')
  })

  test("a worker that holds the gateway's secret gets no operator rights", async () => {
    const pod = rig.createPod('secret-in-hand')
    const auth = { token: pod.mint(), password: GATEWAY_SECRET, deviceToken: GATEWAY_SECRET }
    const node = await rig.connectLightNode(pod, { auth })
    await assertNodeRightsOnly(node)
    node.end()
  })

  test('a second connect is refused by the gateway and gives no more rights', async () => {
    const node = await rig.connectLightNode(rig.createPod('second-connect'))
    const answer = await node.request(operatorConnect(node))
    assert.notEqual(answer?.ok, true)
    if (answer !== undefined) await assertNodeRightsOnly(node)
    node.end()
  })

  test('a second connect in fragments is refused by the gateway and gives no more rights', async () => {
    const node = await rig.connectLightNode(rig.createPod('fragments'))
    const second = operatorConnect(node)
    const text = JSON.stringify(second)
    const cut = text.indexOf('"connect"') + 4
    node.socket.send(text.slice(0, cut), { fin: false })
    node.socket.send(text.slice(cut, -10), { fin: false })
    node.socket.send(text.slice(-10), { fin: true })
    const answer = await node.next(({ type, id }) => type === 'res' && id === second.id)
    assert.notEqual(answer?.ok, true)
    if (answer !== undefined) await assertNodeRightsOnly(node)
    node.end()
  })

  test('a connect behind the first frame in one segment is refused by the gateway', async () => {
    const pod = rig.createPod('smuggled')
    const device = createDevice()
    const node = await rig.openLightNode(pod)
    const { nonce, ts } = node.challenge
    const first = connectFrame(nonce, ts, { device, auth: { token: pod.mint() } })
    const second = operatorConnect(node)
    const { _socket: tcp } = node.socket as unknown as { _socket: { cork(): void; uncork(): void } }
    tcp.cork()
    node.socket.send(JSON.stringify(first))
    node.socket.send(JSON.stringify(second))
    tcp.uncork()
    const hello = await node.next(({ type, id }) => type === 'res' && id === first.id)
    const answer = await node.next(({ type, id }) => type === 'res' && id === second.id)
    assert.notEqual(answer?.ok, true)
    if (hello?.ok === true && answer !== undefined) await assertNodeRightsOnly(node)
    node.end()
  })

  test('a real node with a token that can never work exits for its supervisor', async () => {
    const pod = rig.createPod('wrong-token')
    const node = await rig.startRealNode(pod, { token: 'not-a-token-at-all' })
    assert.equal((await node.exitAfter(0)).code, 1)
    await node.stop()
    assert.equal(connectionsOf(pod).length, 0)
  })
}

/** A hand-made upgrade: `fetch` is not allowed to send these headers. */
async function upgrade(url: string, headers: Readonly<Record<string, string>>) {
  const { request } = await import('node:http')
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>()
  const asked = request(url, { headers }, (response) => {
    const chunks: Buffer[] = []
    response.on('data', (chunk: Buffer) => chunks.push(chunk))
    response.on('end', () => {
      resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() })
    })
  })
  asked.on('upgrade', (_response, socket) => {
    socket.destroy()
    resolve({ status: 101, body: '' })
  })
  asked.on('error', reject)
  asked.end()
  return promise
}
