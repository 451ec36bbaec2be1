/** Gateways and nodes of another age: which words reach a gateway, and what a node of it is told. */

import { test } from 'tap'
import { startOpenClawRig, SECRET } from '../kit/openclaw-rig.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'

type Rig = Awaited<ReturnType<typeof startOpenClawRig>>
type Connect = Readonly<Record<string, unknown>> & {
  readonly client: Readonly<Record<string, unknown>>
}

/** Every `connect` of a node that reached the gateway. */
const connectsOf = (rig: Rig): readonly Connect[] =>
  rig.gateway.received
    .map(({ data }) => JSON.parse(data.toString()) as { method?: string; params?: Connect })
    .flatMap(({ method, params }) => (method === 'connect' && params ? [params] : []))
    .filter(({ role }) => role === 'node')

const NEWER = {
  client: { buildId: 'build-1', timeZone: 'Europe/Berlin', modelIdentifier: 'model-1' },
  commands: ['computer.click'],
  offer: { computerUse: { kind: 'screen' }, locale: 'en' },
}

test('a field that the gateway refuses is left out, and not sent a second time', async (t) => {
  const rig = await startOpenClawRig({
    gateway: { unknownFields: ['client.buildId', 'client.timeZone', 'computerUse'] },
  })
  t.teardown(rig.stop)
  const node = await rig.startNode('worker-a', '127.0.0.11', NEWER)
  t.equal(node.answer?.ok, true)
  t.equal(connectsOf(rig).length, 3, 'it names one field of each object at a time')
  const second = await rig.startNode('worker-b', '127.0.0.12', NEWER)
  t.equal(second.answer?.ok, true)
  t.equal(connectsOf(rig).length, 4)
  for (const connect of connectsOf(rig).slice(2)) {
    t.notHas(connect, { computerUse: {} })
    t.strictSame(
      [connect.client['buildId'], connect.client['timeZone'], connect.client['modelIdentifier']],
      [undefined, undefined, 'model-1'],
    )
    t.equal(connect['locale'], 'en')
  }
  t.equal(rig.devices.listCalls('device.pair.setupCode').length, 2, 'the bootstrap token was good')
})

test('fields that both sides know pass', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  t.equal((await rig.startNode('worker-a', '127.0.0.11', NEWER)).answer?.ok, true)
  const [connect] = connectsOf(rig)
  t.match(connect, { client: NEWER.client, computerUse: { kind: 'screen' } })
})

/** A gateway that names this field in its refusal of every node. */
const refusing = (field: string, devices = createPairedDevices(SECRET)) => {
  const [at, name] = field.startsWith('client.') ? ['/client', field.slice(7)] : ['root', field]
  const message = `invalid connect params: at ${at}: unexpected property '${name}'`
  return startOpenClawRig({
    devices,
    gateway: {
      pair: ({ role }) => (role === 'node' ? { code: 'INVALID_REQUEST', message } : undefined),
    },
  })
}

test('neither the device nor the credential nor the role is ever left out', async (t) => {
  for (const field of ['device', 'auth', 'role', 'scopes', 'client.id', 'client.platform']) {
    const rig = await refusing(field)
    t.teardown(rig.stop)
    const node = await rig.startNode('worker-a', '127.0.0.11', NEWER)
    t.match(await node.closed, { code: 1013, reason: 'gateway_refused' }, field)
    t.equal(connectsOf(rig).length, 1, field)
  }
})

test('a gateway that refuses every try is asked a few times only', async (t) => {
  // It has no use for a bootstrap token, which would be good once only.
  const devices = createPairedDevices(SECRET, { isOlder: true })
  const rig = await refusing('client.buildId', devices)
  t.teardown(rig.stop)
  const node = await rig.startNode()
  t.match(await node.closed, { code: 1013, reason: 'gateway_refused' })
  t.equal(connectsOf(rig).length, 7)
})

test('what a gateway did not know is sent again once it has restarted', async (t) => {
  const unknownFields = ['client.buildId']
  const rig = await startOpenClawRig({ gateway: { unknownFields } })
  t.teardown(rig.stop)
  const first = await rig.startNode('worker-a', '127.0.0.11', NEWER)
  t.equal(first.answer?.ok, true)
  unknownFields.length = 0
  const operator = [...rig.gateway.connections].find(
    ({ handshake }) => handshake.headers['x-forwarded-for'] === undefined,
  )
  operator?.terminate()
  await operator?.closed
  await rig.gateway.waitForMessage()
  const second = await rig.startNode('worker-b', '127.0.0.12', NEWER)
  t.equal(second.answer?.ok, true)
  t.equal(connectsOf(rig).at(-1)?.client['buildId'], 'build-1')
})

test('a node of protocol 3 is taken, and offered to the gateway as what it is', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const older = await rig.startNode('worker-a', '127.0.0.11', { protocols: [3, 3] })
  t.equal(older.answer?.ok, true)
  const newer = await rig.startNode('worker-b', '127.0.0.12', { protocols: [3, 5] })
  t.equal(newer.answer?.ok, true)
  t.strictSame(
    connectsOf(rig).map(({ minProtocol, maxProtocol }) => [minProtocol, maxProtocol]),
    [
      [3, 3],
      [3, 4],
    ],
  )
})

/** What the gateway itself says; a node of several protocols finds the next one to try in it. */
const mismatch = (minProtocol: number, maxProtocol: number, minimumProbeProtocol: number) => ({
  ok: false,
  error: {
    code: 'INVALID_REQUEST',
    message: 'protocol mismatch',
    details: {
      code: 'PROTOCOL_MISMATCH',
      clientMinProtocol: minProtocol,
      clientMaxProtocol: maxProtocol,
      expectedProtocol: 4,
      minimumProbeProtocol,
    },
  },
})

const UNSERVED: readonly (readonly [number, number])[] = [
  [2, 2],
  [5, 6],
]

test('a node that cannot be served is told as by the gateway itself', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  for (const [index, protocols] of UNSERVED.entries()) {
    const node = await rig.startNode(`worker-${index}`, `127.0.0.2${index}`, { protocols })
    t.match(node.answer, mismatch(protocols[0], protocols[1], 3))
    t.match(await node.closed, { code: 1002, reason: 'protocol_mismatch' })
  }
  t.equal(connectsOf(rig).length, 0)
})

test('an older gateway that takes no older node is believed, and then not asked again', async (t) => {
  const rig = await startOpenClawRig({ gateway: { protocols: { spoken: 4, nodeMin: 4 } } })
  t.teardown(rig.stop)
  for (const name of ['worker-a', 'worker-b']) {
    const address = name === 'worker-a' ? '127.0.0.11' : '127.0.0.12'
    const node = await rig.startNode(name, address, { protocols: [3, 3] })
    t.match(node.answer, mismatch(3, 3, 4))
    t.match(await node.closed, { code: 1002, reason: 'protocol_mismatch' })
    t.equal(connectsOf(rig).length, 1)
  }
  const current = await rig.startNode('worker-c', '127.0.0.13')
  t.equal(current.answer?.ok, true)
})

test('a gateway of protocol 3 is named once, with the oldest version that is served', async (t) => {
  const rig = await startOpenClawRig({
    devices: createPairedDevices(SECRET, { isOlder: true }),
    gateway: { protocols: { spoken: 3, nodeMin: 3 } },
    set: ['gateway.connectTimeout=100ms'],
  })
  t.teardown(rig.stop)
  const node = await rig.startNode()
  t.match(await node.closed, { code: 1013, reason: 'operator_unavailable' })
  const named = rig.log.filter((line) => line.includes('2026.5.12') && line.includes('protocol 3'))
  t.equal(named.length, 1)
  const ready = await fetch(`${rig.adminUrl}/readyz?verbose`)
  t.equal(ready.status, 503)
  t.match(await ready.text(), /operator.*protocol 3.*2026\.5\.12/)
})
