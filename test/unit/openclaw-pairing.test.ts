/** The parts of an enrolment: what a gateway has shown of itself, and its limit for new nodes. */

import { test } from 'tap'
import type { Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { createDeviceKeys } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/device-key.ts'
import { Devices } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/devices.ts'
import { Enrolment } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/enrolment.ts'
import { FirstSurfaces } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/first-surfaces.ts'
import {
  readChallenge,
  readConnect,
  type ConnectRequest,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/frames.ts'
import { gatewayConnectFrame } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-connect.ts'
import type { Entrant } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-entry.ts'
import { ConnectRefused } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-handshake.ts'
import { HandshakeClosed } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-messages.ts'
import { GatewayTraits } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-traits.ts'
import { CallRefused } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/operator-channel.ts'
import { PairingRequests } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/pairing-requests.ts'
import type { Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { Semaphore } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { connectFrame, createDevice } from '../kit/light-node.ts'

const DEVICE = createDeviceKeys('a-seed-of-more-than-sixteen-bytes')({
  namespace: 'openclaw',
  serviceAccount: 'worker',
  podName: 'worker-a',
})
const IDENTITY = { podName: 'worker-a', podUid: 'uid', namespace: 'openclaw' } as Identity

const connectOf = (offer: Readonly<Record<string, unknown>>): ConnectRequest => {
  const connect = readConnect(
    JSON.stringify(connectFrame('nonce', 1, { device: createDevice(), offer })),
  )
  if (!connect.ok) throw new Error(connect.code)
  return connect.value
}

test('a gateway is shown nine new nodes of an address within its minute', async (t) => {
  const clock = new FakeClock()
  const surfaces = new FirstSurfaces(clock)
  const take = () => surfaces.take('10.0.0.1')
  const first = Array.from({ length: 9 }, () => {
    clock.advance(1000)
    return take()
  })
  t.ok(first.every(Boolean))
  t.notOk(take())
  t.ok(surfaces.take('10.0.0.2'), 'another address is not held back')
  clock.advance(65_000 - 9000)
  t.notOk(take())
  clock.advance(1000)
  t.ok(take(), 'one leaves the window')
  t.notOk(take())
  surfaces.giveBack('10.0.0.1')
  t.ok(take(), 'what the gateway was not shown does not count')
  t.notOk(take())
  surfaces.giveBack('10.0.0.3')
})

test('what a gateway lacks is learned from its answers, and forgotten with its connection', async (t) => {
  const traits = new GatewayTraits()
  t.notOk(traits.learnBootstrap('device.pair.setupCode: UNAVAILABLE try again'))
  t.ok(traits.hasBootstrap, 'a passing failure teaches nothing')
  t.ok(traits.learnBootstrap('unknown method: device.pair.setupCode'))
  t.ok(traits.learnSurfaceRequests('unknown method: node.pair.request'))
  t.ok(
    traits.learnFields(
      "invalid connect params: at root: unexpected property 'computerUse'; at /client: unexpected property 'buildId'",
    ),
  )
  traits.learnProtocolMin(4)
  traits.learnProtocolMin(3)
  t.strictSame(
    [traits.hasBootstrap, traits.hasSurfaceRequests, traits.protocolMin, [...traits.unknownFields]],
    [false, false, 4, ['client.buildId', 'computerUse']],
  )
  for (const text of [
    "at root: unexpected property 'device'",
    "at /client: unexpected property 'computerUse'",
    "at /device: unexpected property 'locale'",
    "at root: unexpected property '__proto__'",
    'must have required property',
    // A worker chose the names behind the first complaint.
    "at /modelCatalog: unexpected property 'x'; at root: unexpected property 'locale'",
    "invalid connect params: at /workerRuns: unexpected property 'a'; at root: unexpected property 'locale'",
    "at root: unexpected property 'locale'x'",
    '',
  ]) {
    t.notOk(traits.learnFields(text), text)
  }
  t.equal(traits.unknownFields.size, 2)
  traits.reset(['model-catalog-snapshot', 'something-else'])
  t.strictSame(
    [traits.hasBootstrap, traits.hasSurfaceRequests, traits.protocolMin, traits.unknownFields.size],
    [true, true, 3, 0],
  )
  t.strictSame(traits.capabilities, ['model-catalog-snapshot'], 'only what the sidecar knows')
})

test('newer fields pass where the gateway asks for them and the policy allows them', async (t) => {
  const request = connectOf({ modelCatalog: { agentId: 'a' }, workerRuns: { bundleHash: 'b' } })
  const paramsOf = (options: object) => {
    const frame = gatewayConnectFrame({
      request,
      identity: IDENTITY,
      allowedCommands: ['*'],
      device: DEVICE,
      challenge: { nonce: 'n', ts: 1, capabilities: ['model-catalog-snapshot'] },
      auth: { token: 'x' },
      ...options,
    })
    return (JSON.parse(frame) as { params: Readonly<Record<string, unknown>> }).params
  }
  t.match(paramsOf({}), { modelCatalog: { agentId: 'a' }, workerRuns: undefined })
  t.match(paramsOf({ isHostingAllowed: true }), { workerRuns: { bundleHash: 'b' } })
  t.notHas(paramsOf({ challenge: { nonce: 'n', ts: 1 } }), { modelCatalog: {} })
  t.notHas(paramsOf({ allowedCommands: ['system.*'] }), { modelCatalog: {} })
  const unknownFields = new Set(['workerRuns', 'modelCatalog', 'pathEnv', 'client.buildId'])
  const older = paramsOf({ unknownFields, isHostingAllowed: true })
  t.strictSame(
    ['workerRuns', 'modelCatalog', 'pathEnv'].filter((name) => Object.hasOwn(older, name)),
    [],
  )
  t.hasProps(older, ['device', 'auth', 'role', 'scopes', 'client', 'caps', 'commands'])
})

test('the capabilities of a challenge are optional, and odd ones are none', async (t) => {
  const read = (payload: object) =>
    readChallenge(
      JSON.stringify({
        type: 'event',
        event: 'connect.challenge',
        payload: { nonce: 'n', ts: 1, ...payload },
      }),
    )
  t.strictSame(read({}), { nonce: 'n', ts: 1 })
  t.match(read({ capabilities: 7 }), { nonce: 'n', capabilities: undefined })
  t.match(read({ capabilities: ['a'] }), { capabilities: ['a'] })
})

/** A gateway without bootstrap tokens that asks for one approval, and what was done there. */
const approvalRig = (
  options: {
    readonly objection?: Code
    readonly isSurfaceMerged?: boolean
    /** In place of a request for pairing. */
    readonly refusal?: Error
  } = {},
) => {
  const calls: string[] = []
  const traits = new GatewayTraits()
  traits.learnBootstrap('unknown method')
  const abort = new AbortController()
  const clock = new FakeClock()
  let dials = 0
  const address = '10.0.0.1'
  const { id: deviceId, publicKey } = DEVICE
  const channel = {
    async call(method: string) {
      calls.push(method)
      if (method === 'device.pair.list') {
        const request = {
          requestId: 'request-1',
          deviceId,
          publicKey,
          clientId: 'node-host',
          clientMode: 'node',
          roles: ['node'],
          scopes: [],
          remoteIp: address,
        }
        return { pending: calls.includes('device.pair.approve') ? [] : [request], paired: [] }
      }
      if (method === 'node.pair.request') {
        const commands = options.isSurfaceMerged === true ? ['system.run', 'camera.snap'] : []
        return { request: { requestId: 'surface-1', nodeId: deviceId, commands } }
      }
      return {}
    },
  }
  const requests = new PairingRequests(channel, traits)
  const discarded: string[] = []
  const revoked: Code[] = []
  const enrolment = new Enrolment({
    dial() {
      dials += 1
      return Promise.reject(options.refusal ?? new ConnectRefused('PAIRING_REQUIRED'))
    },
    traits,
    handshakes: new Semaphore(1),
    devices: {
      isEnrolled: async () => false,
      list: async () => [],
      markEnrolled: () => {},
      remove: async () => {},
      mintBootstrapToken: async () => undefined,
    },
    requests,
    ephemeral: { keep: async () => {}, discard: (id) => void discarded.push(id) },
    surfaces: { check: () => {} },
    firstSurfaces: { take: () => true, giveBack: () => {} },
    readAuth: () => ({ token: 'secret' }),
    handshakeTimeoutMs: 1000,
    messageBytesMax: 1024,
    clock,
    onEnrolled: () => {},
  })
  const entrant = {
    caller: { address },
    request: connectOf({}),
    device: DEVICE,
    onOffer: () => {},
    context: {
      identity: IDENTITY,
      signal: abort.signal,
      allowedCommands: () => ['*'],
      findObjection: () => options.objection,
      revoke(code: Code) {
        revoked.push(code)
        abort.abort(new Error(code))
      },
    },
  } as unknown as Entrant
  return { enrolment, entrant, calls, clock, dials: () => dials, discarded, revoked }
}

test('pod and policy are asked just before the approval', async (t) => {
  for (const objection of ['pod_terminating', 'identity_not_allowed'] as const) {
    const { enrolment, entrant, calls, discarded, revoked } = approvalRig({ objection })
    await t.rejects(enrolment.enter(entrant), { message: objection })
    t.strictSame([calls, revoked, discarded], [['device.pair.list'], [objection], [DEVICE.id]])
  }
  const allowed = approvalRig()
  await t.rejects(allowed.enrolment.enter(allowed.entrant), { code: 'gateway_refused' })
  t.ok(allowed.calls.includes('device.pair.approve'))
  t.strictSame(allowed.discarded, [DEVICE.id], 'what was approved in vain is removed')
})

test('a connect that the gateway closes without an answer is sent again, four times at most', async (t) => {
  const cases = [
    [new ConnectRefused('NOT_PAIRED'), 5],
    [new HandshakeClosed(true), 5],
    [new HandshakeClosed(false), 1],
    [new ConnectRefused('ANOTHER'), 1],
  ] as const
  for (const [refusal, expected] of cases) {
    const { enrolment, entrant, dials, clock } = approvalRig({ refusal })
    const entered = enrolment.enter(entrant)
    entered.catch(() => {})
    for (let pauses = 0; pauses < 5; pauses += 1) await clock.advanceAsync(200)
    await t.rejects(entered, refusal)
    t.equal(dials(), expected, refusal.message)
  }
})

test('a request of a surface that holds more than was asked for is not approved', async (t) => {
  const { enrolment, entrant, calls } = approvalRig({ isSurfaceMerged: true })
  await t.rejects(enrolment.enter(entrant), { code: 'gateway_refused' })
  t.ok(calls.includes('node.pair.request'))
  t.notOk(calls.includes('node.pair.approve'))
})

test('a list that the gateway could not read for a moment is asked for again', async (t) => {
  let asked = 0
  const { id: deviceId, publicKey } = DEVICE
  const record = { deviceId, publicKey, roles: ['node'], scopes: [] }
  const failing = (times: number, code: string) => {
    asked = 0
    const call = async () => {
      asked += 1
      if (asked <= times)
        throw new CallRefused('device.pair.list', code, 'File changed during read')
      return { pending: [], paired: [record] }
    }
    const traits = new GatewayTraits()
    return Object.assign(new PairingRequests({ call }, traits), {
      devices: new Devices({ call }, traits),
    })
  }
  await t.resolves(failing(5, 'UNAVAILABLE').confirm(DEVICE))
  t.equal(asked, 6)
  await t.rejects(failing(6, 'UNAVAILABLE').confirm(DEVICE), { code: 'gateway_refused' })
  await t.rejects(failing(1, 'INVALID_REQUEST').confirm(DEVICE), { code: 'gateway_refused' })
  t.equal(asked, 1, 'another refusal is meant')
  t.equal(await failing(5, 'UNAVAILABLE').devices.isEnrolled(deviceId), true)
  await t.rejects(failing(6, 'UNAVAILABLE').devices.list(), { code: 'operator_unavailable' })
})

test('an answer that cannot be read, or a refused call, is a fault', async (t) => {
  const traits = new GatewayTraits()
  const answering = (answer: unknown) => new PairingRequests({ call: async () => answer }, traits)
  const own = { device: DEVICE, address: '10.0.0.1' }
  await t.rejects(answering({}).find(own), { code: 'operator_unavailable' })
  const named = {
    nodeId: DEVICE.id,
    displayName: 'worker-a',
    client: { platform: 'linux', version: '1' },
    address: '10.0.0.1',
    surface: {},
  }
  await t.rejects(answering({}).approveSurface(named), { code: 'operator_unavailable' })
  const refusing = (message: string) => {
    const call = () => Promise.reject(new CallRefused('a.method', 'INVALID_REQUEST', message))
    return {
      requests: new PairingRequests({ call }, traits),
      devices: new Devices({ call }, traits),
    }
  }
  await t.rejects(refusing('no').requests.approveSurface(named), { code: 'gateway_refused' })
  await t.rejects(refusing('no').requests.approve('r'), { code: 'gateway_refused' })
  await t.rejects(refusing('no').devices.mintBootstrapToken(), { code: 'operator_unavailable' })
  await t.rejects(refusing('no').devices.remove('d'), { code: 'operator_unavailable' })
  await t.resolves(refusing('unknown method: node.pair.remove').devices.remove('d'))
  t.equal(await refusing('unknown method').requests.approveSurface(named), false)
  const failing = new Error('a bug')
  const broken = new PairingRequests({ call: () => Promise.reject(failing) }, new GatewayTraits())
  await t.rejects(broken.approve('r'), failing)
  await t.rejects(broken.approveSurface(named), failing)
})

test('a removal that stops half-way leaves the device listed for the next one', async (t) => {
  for (const [failing, expected] of [
    ['node.pair.remove', ['node.pair.remove']],
    ['device.pair.remove', ['node.pair.remove', 'device.pair.remove']],
  ] as const) {
    const calls: string[] = []
    const call = async (method: string): Promise<unknown> => {
      calls.push(method)
      if (method === failing) throw new CallRefused(method, 'UNAVAILABLE', 'restarting')
      return {}
    }
    const devices = new Devices({ call }, new GatewayTraits())
    await t.rejects(devices.remove('d'), { code: 'operator_unavailable' })
    t.same(calls, expected)
  }
})
