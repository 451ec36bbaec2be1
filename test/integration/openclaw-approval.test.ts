/** Enrolment by approval, as every gateway before 2026.8 needs it: exactly our request, or none. */

import { test } from 'tap'
import { startOpenClawRig, SECRET } from '../kit/openclaw-rig.ts'
import {
  createPairedDevices,
  type PairedDevices,
  type PairingOptions,
  type PairingRequest,
} from '../kit/paired-devices.ts'

type Rig = Awaited<ReturnType<typeof startOpenClawRig>>

const older = (options: PairingOptions = {}) =>
  createPairedDevices(SECRET, { isOlder: true, ...options })

/** What a worker was sent, and how it was closed. */
const outcomeOf = async ({ answer, closed, frames }: Awaited<ReturnType<Rig['startNode']>>) => ({
  answer,
  closed: await closed,
  text: JSON.stringify(frames),
})

/** Nothing of the device is left at the gateway, once what was under way has ended. */
const cleared = async (devices: PairedDevices): Promise<object> => {
  await devices.called('device.pair.remove', 1)
  const { paired, requests, surfaces, pending } = devices
  return [paired.size, requests.size, surfaces.size, pending.size]
}
const NOTHING = [0, 0, 0, 0]

test('a node is enrolled by one approval, usable at once, and never told of any pairing', async (t) => {
  for (const bootstrapRefusal of [
    "invalid device.pair.setupCode params: at root: unexpected property 'bootstrapProfile'",
    'unknown method: device.pair.setupCode',
  ]) {
    const devices = older({ bootstrapRefusal })
    const rig = await startOpenClawRig({ devices })
    t.teardown(rig.stop)
    const node = await rig.startNode()
    t.equal(node.answer?.ok, true)
    t.notMatch(JSON.stringify(node.frames), /PAIRING|pair/i)
    const [[deviceId, commands] = ['', []]] = devices.surfaces
    t.strictSame([...devices.paired.keys()], [deviceId])
    t.strictSame(commands, ['system.run', 'system.run.prepare', 'system.which'])
    t.strictSame([devices.requests.size, devices.pending.size], [0, 0])

    const second = await rig.startNode('worker-b', '127.0.0.12')
    t.equal(second.answer?.ok, true)
    t.equal(devices.listCalls('device.pair.approve').length, 2)
    t.equal(devices.listCalls('device.pair.setupCode').length, 1, 'asked once a connection')
    node.end()
    await node.closed
    const again = await rig.openNode({ auth: { token: node.token } })
    t.equal((await again.connect())?.ok, true)
    t.equal(devices.listCalls('device.pair.approve').length, 2, 'a known device needs none')
  }
})

test('with its pod go the record of the device and that of its surface', async (t) => {
  const devices = older()
  const rig = await startOpenClawRig({ devices })
  t.teardown(rig.stop)
  const node = await rig.startNode()
  rig.api.deletePod('openclaw', 'worker-a')
  t.match(await node.closed, { code: 1008, reason: 'pod_deleted' })
  t.strictSame(await cleared(devices), NOTHING)
})

test('a surface is approved within allowedCommands only', async (t) => {
  const devices = older()
  const rig = await startOpenClawRig({
    devices,
    set: [
      'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker, allowedCommands: [system.which]}]',
    ],
  })
  t.teardown(rig.stop)
  t.equal((await rig.startNode()).answer?.ok, true)
  t.strictSame([...devices.surfaces.values()], [['system.which']])
})

const KEY = 'A'.repeat(43)
/** Each alters what `device.pair.list` shows of our request. */
const HOSTILE: Readonly<Record<string, (request: PairingRequest) => readonly object[]>> = {
  'another key under our id': (request) => [{ ...request, publicKey: KEY }],
  'a second request under our id': (request) => [request, { ...request, requestId: 'second' }],
  'a scope': (request) => [{ ...request, scopes: ['operator.read'] }],
  'no list of scopes': (request) => [{ ...request, scopes: undefined }],
  'another role': (request) => [{ ...request, role: 'operator', roles: ['operator'] }],
  'another role beside ours': (request) => [{ ...request, roles: ['node', 'operator'] }],
  'no role': (request) => [{ ...request, roles: [] }],
  'another client': (request) => [{ ...request, clientId: 'cli' }],
  'another mode': (request) => [{ ...request, clientMode: 'backend' }],
  'another address': (request) => [{ ...request, remoteIp: '127.0.0.99' }],
  'no address': (request) => [{ ...request, remoteIp: undefined }],
  'a record to replace that is not ours': (request) => [{ ...request, isRepair: true }],
  'no request': () => [],
  'no id': (request) => [{ ...request, requestId: undefined }],
}

test('nothing is approved but exactly our own request', async (t) => {
  for (const [what, alter] of Object.entries(HOSTILE)) {
    const devices = older({ alterRequests: (requests) => requests.flatMap(alter) })
    const rig = await startOpenClawRig({ devices })
    t.teardown(rig.stop)
    const { closed, text, answer } = await outcomeOf(await rig.startNode())
    t.match(closed, { code: 1013, reason: 'gateway_refused' }, what)
    t.equal(answer, undefined, what)
    t.notMatch(text, /PAIRING_REQUIRED/, what)
    await devices.called('device.pair.remove', 1)
    t.equal(devices.listCalls('device.pair.approve').length, 0, what)
    t.equal(devices.paired.size, 0, what)
    t.match(rig.log.join('\n'), /pairing request/, `the log says why: ${what}`)
  }
})

test('foreign requests neither stop an enrolment nor are touched by one', async (t) => {
  const foreign = { deviceId: 'f'.repeat(64), scopes: 'odd' }
  const devices = older({
    alterRequests: (requests) => [foreign, {}, { deviceId: 7 }, ...requests],
  })
  const rig = await startOpenClawRig({ devices })
  t.teardown(rig.stop)
  t.equal((await rig.startNode()).answer?.ok, true)
  t.equal(devices.listCalls('device.pair.approve').length, 1)
  t.equal(devices.listCalls('device.pair.reject').length, 0)
})

test('a record of ours may be replaced', async (t) => {
  let isRepair = false
  const devices = older({
    alterRequests: (requests) => requests.map((request) => ({ ...request, isRepair })),
  })
  let isPinned = false
  const rig = await startOpenClawRig({
    devices,
    gateway: {
      pair(connect, params, connection) {
        const refusal = devices.gateway.pair?.(connect, params, connection)
        if (!isPinned || connect.device === undefined) return refusal
        isPinned = false
        const { id: deviceId, publicKey } = connect.device
        const remoteIp = String(connection.handshake.headers['x-forwarded-for'])
        devices.requests.set('repair', {
          requestId: 'repair',
          deviceId,
          publicKey,
          remoteIp,
          displayName: 'worker-a',
          clientId: 'node-host',
          clientMode: 'node',
          role: 'node',
          roles: ['node'],
          scopes: [],
          isRepair: true,
        })
        return { code: 'PAIRING_REQUIRED', message: 'metadata-upgrade' }
      },
    },
  })
  t.teardown(rig.stop)
  const first = await rig.startNode()
  first.end()
  await first.closed
  isPinned = true
  isRepair = true
  const node = await rig.openNode({ auth: { token: first.token } })
  t.equal((await node.connect())?.ok, true)
  t.equal(devices.listCalls('device.pair.approve').length, 2)
  t.equal(devices.paired.size, 1)
})

test('a refused approval is a fault, and leaves nothing behind', async (t) => {
  const devices = older({
    before: {
      'device.pair.approve'() {
        throw new Error('missing scope: operator.admin')
      },
    },
  })
  const rig = await startOpenClawRig({ devices })
  t.teardown(rig.stop)
  const { closed, text } = await outcomeOf(await rig.startNode())
  t.match(closed, { code: 1013, reason: 'gateway_refused' })
  t.notMatch(text, /PAIRING_REQUIRED|operator\.admin/)
  t.strictSame(await cleared(devices), NOTHING)
})

test('a record with more than a node’s rights is removed, and its worker not let in', async (t) => {
  for (const [what, change] of Object.entries({
    'a scope': { scopes: ['operator.read'] },
    'another role': { roles: ['node', 'operator'] },
    'a token with a scope': { tokens: [{ role: 'node', scopes: ['operator.read'] }] },
    'a token of another role': { tokens: [{ role: 'operator', scopes: [] }] },
    'another key': { publicKey: KEY },
  })) {
    const devices = older({ alterDevice: (device) => ({ ...device, ...change }) })
    const rig = await startOpenClawRig({ devices })
    t.teardown(rig.stop)
    const { closed, answer } = await outcomeOf(await rig.startNode())
    t.match(closed, { code: 1013, reason: 'gateway_refused' }, what)
    t.equal(answer, undefined, what)
    t.strictSame(await cleared(devices), NOTHING, what)
  }
})

test('a gateway that asks for another approval is not given one', async (t) => {
  const devices = older()
  const rig = await startOpenClawRig({
    devices,
    gateway: {
      pair(connect, params, connection) {
        devices.paired.clear()
        return devices.gateway.pair?.(connect, params, connection)
      },
    },
  })
  t.teardown(rig.stop)
  const { closed, text } = await outcomeOf(await rig.startNode())
  t.match(closed, { code: 1013, reason: 'gateway_refused' })
  t.notMatch(text, /PAIRING_REQUIRED/)
  t.equal(devices.listCalls('device.pair.approve').length, 1)
  t.strictSame(await cleared(devices), NOTHING)
})

test('a gateway that closes each connect after the approval is not given another one', async (t) => {
  const devices = older()
  const rig = await startOpenClawRig({
    devices,
    gateway: {
      pair(connect, params, connection) {
        const isApproved = connect.role === 'node' && devices.paired.size > 0
        if (!isApproved) return devices.gateway.pair?.(connect, params, connection)
        connection.close(1008, 'pairing changed')
        return { code: 'NOT_PAIRED', message: 'never sent' }
      },
    },
  })
  t.teardown(rig.stop)
  const { closed } = await outcomeOf(await rig.startNode())
  t.match(closed, { code: 1013, reason: 'gateway_refused' })
  t.equal(devices.listCalls('device.pair.approve').length, 1)
  t.strictSame(await cleared(devices), NOTHING)
})

/** Deletes the pod, and waits until the sidecar has seen that. */
const deletePod = async (rig: Rig, token: string): Promise<void> => {
  rig.api.deletePod('openclaw', 'worker-a')
  for (;;) {
    const probe = await rig.openNode({ auth: { token } })
    await probe.connect()
    if (/^pod_(?:terminating|deleted)$/.test((await probe.closed).reason)) return
  }
}

for (const [when, method] of Object.entries({
  'before the approval': 'device.pair.list',
  'between the approval and the second connect': 'node.pair.request',
} as const)) {
  test(`a pod that goes ${when} is not let in, and leaves no record`, async (t) => {
    const { promise: started, resolve: start } = Promise.withResolvers<string>()
    let lists = 0
    const devices = older({
      before: {
        [method]: async () => {
          lists += 1
          // The first list is that of the sidecar's start, the second that of the known devices.
          if (devices.requests.size + devices.paired.size === 0) return
          if (lists < 9 && rig.audit.length === 0) await deletePod(rig, await started)
        },
      },
    })
    const rig = await startOpenClawRig({ devices })
    t.teardown(rig.stop)
    const pod = rig.createPod()
    const token = rig.mint({ pod })
    start(token)
    const node = await rig.openNode({ auth: { token } })
    t.equal((await node.connect())?.ok, false)
    t.match(await node.closed, { code: 1008, reason: /^pod_(?:terminating|deleted)$/ })
    const approvals = method === 'device.pair.list' ? 0 : 1
    t.strictSame(await cleared(devices), NOTHING)
    t.equal(devices.listCalls('device.pair.approve').length, approvals)
  })
}

test('fifty new pods behind one address enrol, and the gateway counts none of them', async (t) => {
  const devices = older()
  const rig = await startOpenClawRig({
    devices,
    set: ['k8sTrust.sourceAddress=report', 'limits.pendingPerAddress=64'],
  })
  t.teardown(rig.stop)
  const nodes = await Promise.all(
    Array.from({ length: 50 }, async (_, n) => {
      const pod = rig.createPod(`worker-${n}`, `127.0.1.${n + 1}`)
      const node = await rig.openNode({ auth: { token: rig.mint({ pod }) } })
      return { node, answer: await node.connect() }
    }),
  )
  t.ok(nodes.every(({ answer }) => answer?.ok === true))
  t.equal(devices.paired.size, 50)
  t.equal(devices.surfaces.size, 50)
})

test('where no surface can be requested, the first one is approved once its node is connected', async (t) => {
  const devices = older({
    before: {
      'node.pair.request'() {
        throw new Error('unknown method: node.pair.request')
      },
    },
  })
  const rig = await startOpenClawRig({ devices })
  t.teardown(rig.stop)
  t.equal((await rig.startNode()).answer?.ok, true)
  await devices.called('node.pair.approve', 1)
  t.equal((await rig.startNode('worker-b', '127.0.0.12')).answer?.ok, true)
  await devices.called('node.pair.approve', 2)
  t.equal(devices.surfaces.size, 2)
  t.equal(devices.listCalls('node.pair.request').length, 1, 'asked once a connection')
})

test('a gateway that counts new nodes is shown nine of an address in a minute, and no more', async (t) => {
  const devices = createPairedDevices(SECRET)
  const rig = await startOpenClawRig({ devices, set: ['k8sTrust.sourceAddress=report'] })
  t.teardown(rig.stop)
  const enrol = async (n: number) => {
    const pod = rig.createPod(`worker-${n}`, `127.0.1.${n + 1}`)
    const node = await rig.openNode({ auth: { token: rig.mint({ pod }) } })
    return (await node.connect())?.ok === true ? 'in' : (await node.closed).reason
  }
  const outcomes: string[] = []
  for (let n = 0; n < 10; n += 1) outcomes.push(await enrol(n))
  t.strictSame(outcomes, [...Array.from({ length: 9 }, () => 'in'), 'too_many_enrolments'])
  t.equal(devices.listCalls('device.pair.setupCode').length, 9)
})
