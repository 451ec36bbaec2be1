/** Device records and sessions: what is removed with its pod, what is kept, and in which order. */

import { EventEmitter, once } from 'node:events'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import {
  createDeviceKeys,
  type PodName,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/device-key.ts'
import type { DeviceRecord } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/devices.ts'
import {
  Enrolment,
  type EnrolmentOptions,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/enrolment.ts'
import {
  EphemeralSessions,
  type EphemeralSessionsOptions,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/ephemeral-sessions.ts'
import type { Entrant } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-entry.ts'
import { GatewayTraits } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-traits.ts'
import { CallRefused } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/operator-channel.ts'
import { KnownPods } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/known-pods.ts'
import {
  Sessions,
  type SessionOptions,
} from '@openclaw-k8s/auth-sidecar/dialect/openclaw/sessions.ts'
import { Surfaces } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/surfaces.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import type { WatchedPod } from '@openclaw-k8s/auth-sidecar/kube/pod.ts'
import { Semaphore } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'
import { textFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const deviceKeys = createDeviceKeys('a-seed-of-more-than-sixteen-bytes')
const podNamed = (podName: string): PodName => ({
  namespace: 'openclaw',
  serviceAccount: 'worker',
  podName,
})
const recordOf = (podName: string): DeviceRecord => ({
  deviceId: deviceKeys(podNamed(podName)).id,
  displayName: podName,
})
const POD = { namespace: 'openclaw', serviceAccount: 'openclaw-worker', podName: 'worker-a' }
const session = (podUid: string) => ({
  pod: POD,
  podUid,
  allowedCommands: () => ['*'],
  revoke: () => {},
})
/** A session that the gateway has accepted, on a socket that stays open. */
const openAccepted = (sessions: Sessions, deviceId: string, options: SessionOptions) => {
  const socket = Object.assign(new EventEmitter(), { closed: false }) as unknown as Socket
  sessions.open(deviceId, options).bindSocket(socket)
}
/** The pod as the watch shows it. */
const watched = ({ podName: name, ...rest }: PodName, uid: string) =>
  ({ ...rest, name, uid }) as WatchedPod

const settle = async () => {
  for (let turns = 0; turns < 8; turns += 1) await turn()
}

/** Options of an enrolment whose gateway knows every device; the dial and the clock are still to be chosen. */
const enrolmentOptions: Omit<EnrolmentOptions, 'clock' | 'dial'> = {
  handshakes: new Semaphore(1),
  ephemeral: { keep: async () => {}, discard: () => {} },
  requests: {
    find: async () => 'request',
    approve: async () => {},
    approveSurface: async () => true,
    confirm: async () => {},
  },
  traits: new GatewayTraits(),
  firstSurfaces: { take: () => true, giveBack: () => {} },
  devices: {
    isEnrolled: async () => true,
    list: async () => [],
    markEnrolled: () => {},
    remove: async () => {},
    mintBootstrapToken: async () => 'once',
  },
  surfaces: { check: () => {} },
  readAuth: () => ({}),
  handshakeTimeoutMs: 1000,
  messageBytesMax: 1024,
  onEnrolled: () => {},
}

const rig = (options: Partial<EphemeralSessionsOptions> = {}) => {
  const clock = new FakeClock()
  const sessions = new Sessions()
  const removed: string[] = []
  const rejected: string[] = []
  const faults: unknown[] = []
  const state = { records: [] as DeviceRecord[], live: undefined as PodName[] | undefined }
  const ephemeral = new EphemeralSessions({
    devices: {
      list: async () => state.records,
      remove: async (deviceId) => void removed.push(deviceId),
    },
    requests: { reject: async (deviceId) => void rejected.push(deviceId) },
    sessions,
    deviceKeys,
    pods: {
      livePods: () => state.live ?? [],
      // Of the accounts whose pods are known.
      accounts: () =>
        state.live === undefined ? [] : [{ namespace: 'openclaw', serviceAccount: 'worker' }],
    },
    isEnabled: () => true,
    clock,
    onRemoved: () => {},
    onFault: (error) => faults.push(error),
    ...options,
  })
  return { clock, sessions, removed, rejected, faults, state, ephemeral }
}

test('the record of a pod is removed with the pod, once its last session is over', async (t) => {
  const { ephemeral, removed, sessions } = rig()
  const { id } = deviceKeys(podNamed('a'))
  const live = sessions.open(id, session('uid-1'))
  ephemeral.podGone(watched(podNamed('a'), 'uid-1'))
  await settle()
  t.strictSame(removed, [], 'what is under way might enrol it again')
  live.abandon()
  await settle()
  t.strictSame(removed, [id])
  t.equal(ephemeral.size, 0)
})

test('a pod created again under its name keeps its device', async (t) => {
  const { ephemeral, removed, sessions } = rig()
  const { id } = deviceKeys(podNamed('a'))
  sessions.open(id, session('uid-2'))
  ephemeral.podGone(watched(podNamed('a'), 'uid-1'))
  await settle()
  t.strictSame(removed, [])
})

test('a removal that fails while a new session waits for it is not tried again', async (t) => {
  const { promise, reject } = Promise.withResolvers<void>()
  let removals = 0
  const { clock, ephemeral } = rig({
    devices: {
      list: async () => [],
      remove() {
        removals += 1
        return promise
      },
    },
  })
  const { id } = deviceKeys(podNamed('a'))
  ephemeral.discard(id, { podName: 'a', podUid: 'uid-1' })
  await settle()
  const kept = ephemeral.keep(id)
  reject(new Fault('operator_unavailable', 'down'))
  await kept
  await clock.advanceAsync(10_000)
  await settle()
  t.equal(removals, 1, 'the session uses the device now')
  t.equal(ephemeral.size, 0)
})

test('a new session cancels a waiting removal, and waits for one under way', async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>()
  const removed: string[] = []
  const { ephemeral } = rig({
    devices: {
      list: async () => [],
      async remove(deviceId) {
        removed.push(deviceId)
        await promise
      },
    },
  })
  const names = ['a', 'b', 'c', 'd', 'e']
  for (const name of names) ephemeral.podGone(watched(podNamed(name), `uid-${name}`))
  await settle()
  t.equal(removed.length, 4, 'four at once')
  await ephemeral.keep(deviceKeys(podNamed('e')).id)
  let isKept = false
  const keep = async () => {
    await ephemeral.keep(deviceKeys(podNamed('a')).id)
    isKept = true
  }
  const kept = keep()
  await settle()
  t.notOk(isKept, 'the gateway may be removing it right now')
  resolve()
  await kept
  await settle()
  t.notOk(removed.includes(deviceKeys(podNamed('e')).id))
  t.equal(ephemeral.size, 0)
})

test('a removal that fails is tried again until it is done', async (t) => {
  let failures = 2
  const { clock, ephemeral, faults } = rig({
    devices: {
      list: async () => [],
      async remove() {
        failures -= 1
        if (failures >= 0) throw new Error('the channel broke')
      },
    },
  })
  ephemeral.podGone(watched(podNamed('a'), 'uid-1'))
  await settle()
  t.equal(ephemeral.size, 1)
  await clock.advanceAsync(2000)
  t.equal(ephemeral.size, 1)
  await clock.advanceAsync(2000)
  await settle()
  t.equal(ephemeral.size, 0)
  t.equal(faults.length, 2)
})

test('at the start the records of pods that are gone are removed, and no others', async (t) => {
  const { ephemeral, removed, sessions, state } = rig()
  const connecting = recordOf('connecting')
  sessions.open(connecting.deviceId, session('uid-9'))
  const foreign: readonly DeviceRecord[] = [
    { deviceId: 'f'.repeat(64), displayName: 'gone' },
    { deviceId: recordOf('gone').deviceId, displayName: 'renamed' },
    { deviceId: recordOf('nameless').deviceId },
    {
      deviceId: deviceKeys({ ...podNamed('gone'), serviceAccount: 'other' }).id,
      displayName: 'gone',
    },
    {
      deviceId: createDeviceKeys('the-seed-of-another-sidecar')(podNamed('gone')).id,
      displayName: 'gone',
    },
  ]
  state.records = [recordOf('gone'), recordOf('living'), connecting, ...foreign]
  await ephemeral.reconcile()
  t.strictSame(removed, [], 'as long as the pods are not known, all may live')
  state.live = [podNamed('living')]
  await ephemeral.reconcile()
  await settle()
  t.strictSame(removed, [recordOf('gone').deviceId])
})

test('a pod that left unnoticed is found later', async (t) => {
  const { clock, ephemeral, removed, state } = rig()
  await ephemeral.reconcile()
  state.records = [recordOf('a'), recordOf('b')]
  state.live = [podNamed('b')]
  await clock.advanceAsync(1000)
  await settle()
  t.strictSame(removed, [recordOf('a').deviceId], 'soon after the pods are known')
  state.live = []
  await clock.advanceAsync(300_000)
  await settle()
  t.strictSame(removed.slice(1), [recordOf('a').deviceId, recordOf('b').deviceId])
  ephemeral.stop()
  t.equal(clock.pending, 0)
})

test('a namespace that cannot be watched keeps its records, and takes none of the others', async (t) => {
  const away = { namespace: 'away', serviceAccount: 'worker' }
  const known = new KnownPods({
    watch: {
      listPods: () => [],
      listAccounts: () => [{ namespace: 'openclaw', name: 'worker', uid: 'u' }],
      scopes: { isTrusted: ({ namespace }) => isBack || namespace !== 'away' },
    },
    allowedIdentities: () => [away, { namespace: 'openclaw', serviceAccount: 'gone' }],
  })
  let isBack = false
  const { clock, ephemeral, removed, state } = rig({ pods: known })
  const awayId = deviceKeys({ ...away, podName: 'a' }).id
  state.records = [recordOf('a'), { deviceId: awayId, displayName: 'a' }]
  await ephemeral.reconcile()
  await settle()
  t.strictSame(removed, [recordOf('a').deviceId])
  state.records = [{ deviceId: awayId, displayName: 'a' }]
  isBack = true
  ephemeral.scopeSynced()
  await clock.advanceAsync(1000)
  await settle()
  t.strictSame(removed.slice(1), [awayId], 'soon after it can be watched again')
})

test('a namespace that was hidden for a moment is swept soon after, though nobody tells', async (t) => {
  const away = { namespace: 'away', serviceAccount: 'worker' }
  const here = { namespace: 'openclaw', serviceAccount: 'worker' }
  let accounts = [here]
  let lists = 0
  const awayId = deviceKeys({ ...away, podName: 'a' }).id
  const removed: string[] = []
  const { clock, ephemeral } = rig({
    pods: { livePods: () => [], accounts: () => accounts },
    devices: {
      list: async () => {
        lists += 1
        return [{ deviceId: awayId, displayName: 'a' }]
      },
      remove: async (deviceId) => void removed.push(deviceId),
    },
  })
  await ephemeral.reconcile()
  await clock.advanceAsync(60_000)
  t.strictSame(removed, [], 'its pods are not known')
  t.equal(lists, 1, 'a namespace that stays hidden costs the gateway nothing')
  accounts = [here, away]
  await clock.advanceAsync(10_000)
  await settle()
  t.strictSame(removed, [awayId])
  accounts = [away]
  await clock.advanceAsync(60_000)
  t.equal(lists, 2)
})

test('a sweep that fails is repeated soon', async (t) => {
  const { clock, ephemeral, removed, state, faults } = rig({
    devices: {
      list: async () => {
        if (faults.length === 0) throw new Fault('operator_unavailable', 'down')
        return [recordOf('gone')]
      },
      remove: async (deviceId) => void removed.push(deviceId),
    },
  })
  state.live = []
  await ephemeral.reconcile()
  t.equal(faults.length, 1)
  await clock.advanceAsync(10_000)
  await settle()
  t.strictSame(removed, [recordOf('gone').deviceId])
})

test('before the first reconciliation a namespace that is synced asks nobody', async (t) => {
  const { clock, ephemeral } = rig()
  ephemeral.scopeSynced()
  t.equal(clock.pending, 0)
})

test('without ephemeral sessions every record stays', async (t) => {
  const { ephemeral, removed, state } = rig({ isEnabled: () => false })
  state.live = []
  state.records = [recordOf('a')]
  await ephemeral.reconcile()
  ephemeral.podGone(watched(podNamed('a'), 'uid-1'))
  await settle()
  t.strictSame(removed, [])
})

test('a session is cleared when all earlier sessions of the device are gone, in any order', async (t) => {
  const sessions = new Sessions()
  const revoked: string[] = []
  const open = (name: string) =>
    sessions.open('device', { ...session(name), revoke: (code) => revoked.push(`${name} ${code}`) })
  const first = open('first')
  const held = Object.assign(new EventEmitter(), { closed: false }) as unknown as Socket
  first.bindSocket(held)
  const second = open('second')
  const third = open('third')
  t.strictSame(revoked, ['first displaced', 'second displaced'])
  let isCleared = false
  const clear = async () => {
    await third.predecessorsClosed
    isCleared = true
  }
  const predecessorsClosed = clear()
  second.abandon()
  await settle()
  t.notOk(isCleared, 'the second never waited for the first in vain')
  held.emit('close')
  await predecessorsClosed
  t.equal(sessions.find('device'), third)
  third.abandon()
  await settle()
  t.equal(sessions.find('device'), undefined, 'and is forgotten with its end')
})

test('what a failed enrolment left is rejected and removed, with or without ephemeral sessions', async (t) => {
  const { ephemeral, removed, rejected, faults, clock } = rig({ isEnabled: () => false })
  const { id } = deviceKeys(podNamed('a'))
  ephemeral.discard(id, { podName: 'a', podUid: 'uid-1' })
  await settle()
  t.strictSame([rejected, removed], [[id], [id]])

  let failures = 1
  const flaky = rig({
    requests: {
      async reject(deviceId) {
        failures -= 1
        if (failures === 0) throw new Fault('operator_unavailable', 'no answer')
        rejected.push(deviceId)
      },
    },
  })
  flaky.ephemeral.discard(id, { podName: 'a', podUid: 'uid-1' })
  await settle()
  t.strictSame([flaky.removed, flaky.faults.length], [[], 1], 'neither before the other')
  await flaky.clock.advanceAsync(2000)
  await settle()
  t.strictSame([rejected, flaky.removed], [[id, id], [id]], 'but both in the end')
  for (const each of [ephemeral, flaky.ephemeral]) each.stop()
  t.strictSame([faults, clock.pending], [[], 0])
})

test('the next session of a device keeps what a failed enrolment would have removed', async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>()
  const { ephemeral, removed } = rig({ requests: { reject: () => promise } })
  const { id } = deviceKeys(podNamed('a'))
  ephemeral.discard(id, { podName: 'a', podUid: 'uid-1' })
  let isKept = false
  const kept = ephemeral.keep(id).then(() => (isKept = true))
  await settle()
  t.notOk(isKept, 'a removal that has begun is waited for')
  resolve()
  await kept
  t.strictSame(removed, [id])
})

test('a device is not looked up while its record may be about to be removed', async (t) => {
  const asked: string[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  const { devices } = enrolmentOptions
  const enrolment = new Enrolment({
    ...enrolmentOptions,
    dial: () => Promise.reject(new Fault('gateway_unreachable', 'no gateway here')),
    ephemeral: { keep: () => promise, discard: () => {} },
    devices: {
      ...devices,
      async isEnrolled(deviceId) {
        asked.push(deviceId)
        return true
      },
    },
    clock: new FakeClock(),
  })
  const device = deviceKeys(podNamed('a'))
  const context = { signal: new AbortController().signal }
  const entered = enrolment.enter({ device, context } as unknown as Entrant)
  await settle()
  t.strictSame(asked, [])
  resolve()
  await t.rejects(entered, { code: 'gateway_unreachable' })
  t.strictSame(asked, [device.id])
})

test('a wider surface is approved as far as the policy allows, and only for our own sessions', async (t) => {
  const clock = new FakeClock()
  const sessions = new Sessions()
  openAccepted(sessions, 'ours', {
    pod: POD,
    podUid: 'u',
    allowedCommands: () => ['system.*'],
    revoke: () => {},
  })
  openAccepted(sessions, 'greedy', {
    pod: POD,
    podUid: 'v',
    allowedCommands: () => ['system.which'],
    revoke: () => {},
  })
  const approved: unknown[] = []
  const withheld: string[] = []
  let lists = 0
  const commands = ['system.which', 'system.run']
  const surfaces = new Surfaces({
    sessions,
    clock,
    channel: {
      async call(method, params) {
        if (method === 'node.pair.approve') return approved.push(params)
        if (method === 'node.describe') return { connected: true }
        lists += 1
        return {
          pending: ['ours', 'greedy', 'foreign'].map((nodeId) => ({
            requestId: `of-${nodeId}`,
            nodeId,
            commands,
          })),
          paired: [],
        }
      },
    },
    onWithheld: (deviceId) => withheld.push(deviceId),
    onDropped: () => {},
    onFault: (error) => t.fail(String(error)),
  })
  surfaces.check()
  surfaces.check()
  surfaces.check()
  await settle()
  t.strictSame(approved, [{ requestId: 'of-ours' }])
  t.strictSame(withheld, ['greedy'])
  t.equal(lists, 1, 'a list is long: not one for each')
  clock.advance(1000)
  await settle()
  t.equal(lists, 2, 'but none is forgotten')
  clock.advance(1000)
  await settle()
  t.equal(lists, 2)
})

test('surfaces are approved by the current policy, and no list of commands approves unknown ones', async (t) => {
  const clock = new FakeClock()
  const sessions = new Sessions()
  let allowed: readonly string[] = ['system.*', 'camera.*']
  openAccepted(sessions, 'ours', {
    pod: POD,
    podUid: 'u',
    allowedCommands: () => allowed,
    revoke: () => {},
  })
  let approved: string[] = []
  let withheld = 0
  let pending: readonly object[] = []
  const surfaces = new Surfaces({
    sessions,
    clock,
    channel: {
      async call(method, params) {
        if (method === 'node.pair.list') return { pending }
        if (method === 'node.describe') return {}
        return approved.push((params as { requestId: string }).requestId)
      },
    },
    onWithheld: () => (withheld += 1),
    onDropped: () => {},
    onFault: (error) => t.fail(String(error)),
  })
  const check = async (...offers: readonly object[]) => {
    approved = []
    withheld = 0
    pending = offers.map((offer, nth) => ({ requestId: String(nth), nodeId: 'ours', ...offer }))
    surfaces.check()
    await settle()
    clock.advance(1000)
    await settle()
    return { approved, withheld }
  }
  const commands = ['system.run']
  const offers = [
    { commands },
    { commands, caps: ['system'] },
    { commands, caps: ['system', 'mcp'] },
    { commands, permissions: { 'screen.record': true } },
    { commands, computerUse: {} },
    { caps: ['system'], permissions: {} },
    {},
  ]
  t.strictSame(await check(...offers), { approved: ['0', '1'], withheld: 5 })
  allowed = ['camera.*']
  t.strictSame(await check(...offers), { approved: [], withheld: 7 }, 'no old list is kept')
  allowed = ['*']
  t.strictSame((await check(...offers)).approved.length, 7)
  surfaces.stop()
})

test('a session ends when the policy leaves less than it offers, and for no other change', async (t) => {
  const sessions = new Sessions()
  let allowed: readonly string[] = ['system.*', 'camera.*']
  const open = (id: string) =>
    sessions.open(id, { pod: POD, podUid: id, allowedCommands: () => allowed, revoke() {} })
  const mute = open('has not said yet what it offers')
  const small = open('small')
  const wide = open('wide')
  small.offer({ commands: ['system.which'], caps: [] })
  wide.offer({ commands: ['system.which', 'camera.snap'], caps: ['camera'] })
  const after = (...list: readonly string[]) => {
    allowed = list
    return [mute, small, wide].flatMap((each) => {
      const code = each.findEnd()
      return code === undefined ? [] : [`${each.podUid} ${code}`]
    })
  }
  t.strictSame(after('camera.*', 'system.*', 'system.*'), [], 'in another order')
  t.strictSame(after('*'), [], 'wider')
  t.strictSame(after('system.which', 'camera.snap'), [], 'narrower, and still all that is offered')
  t.strictSame(after('system.*'), ['wide policy_changed'])
  t.strictSame(after('x'), ['small policy_changed', 'wide policy_changed'])
  t.strictSame(after(), [], 'who is refused as a whole has another reason to end')

  allowed = ['*']
  small.approve({ commands: ['terminal.upload'] })
  t.equal(small.isUpToDate({ commands: ['system.which'], caps: [] }), true)
  t.strictSame(after('system.*', 'camera.*'), ['small policy_changed'], 'what was approved later')
  small.offer({ commands: [], caps: [] })
  t.equal(small.isUpToDate({ commands: ['terminal.upload'] }), true)
  allowed = ['*']
  t.equal(small.isUpToDate({ commands: ['terminal.upload'] }), false, 'wider than was reported')
  t.equal(mute.isUpToDate({ commands: [] }), false)
})

test('a bug in the approval of surfaces is a bug, not a failed call', async (t) => {
  const broken = new TypeError('a bug')
  const faults: unknown[] = []
  const surfaces = new Surfaces({
    sessions: {
      find() {
        throw broken
      },
    },
    clock: new FakeClock(),
    channel: { call: async () => ({ pending: [{ requestId: 'r', nodeId: 'n' }] }) },
    onWithheld: () => {},
    onDropped: () => {},
    onFault: (error) => faults.push(error),
  })
  const uncaught = once(process, 'unhandledRejection')
  surfaces.check()
  t.equal((await uncaught)[0], broken)
  t.strictSame(faults, [])
})

test('a failed handshake ends with its own bug, fault, deadline or abort reason, and without its socket', async (t) => {
  const challenge = { type: 'event', event: 'connect.challenge', payload: { nonce: 'n', ts: 1 } }
  const clock = new FakeClock()
  const enter = (head: Buffer, allowedCommands: () => never, signal: AbortSignal) => {
    const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })
    const enrolment = new Enrolment({
      ...enrolmentOptions,
      dial: async () => ({ socket: socket as Socket, head, subprotocol: undefined }),
      clock,
    })
    const context = { signal, allowedCommands }
    const entrant = { device: deviceKeys(podNamed('a')), context, request: { id: 'r' } }
    const outcome = enrolment
      .enter(entrant as unknown as Entrant)
      .catch((error: unknown) => ({ error, isSocketGone: socket.destroyed }))
    return outcome
  }
  const challenged = textFrame(JSON.stringify(challenge), { masked: false })
  const never = new AbortController().signal
  const bug = new TypeError('a bug')
  const thrower = (error: Error) => (): never => {
    throw error
  }
  t.strictSame(await enter(challenged, thrower(bug), never), { error: bug, isSocketGone: true })
  const fault = new Fault('gateway_refused', 'no')
  t.strictSame(await enter(challenged, thrower(fault), never), { error: fault, isSocketGone: true })

  const silent = Buffer.alloc(0)
  const late = enter(silent, thrower(bug), never)
  await settle()
  await clock.advanceAsync(1000)
  t.match(await late, { error: { code: 'gateway_unreachable' }, isSocketGone: true })

  const revoking = new AbortController()
  const revoked = enter(silent, thrower(bug), revoking.signal)
  await settle()
  const reason = new Error('revoked')
  revoking.abort(reason)
  t.strictSame(await revoked, { error: reason, isSocketGone: true })
})

test('a surface that somebody else decided about meanwhile needs no second look', async (t) => {
  const sessions = new Sessions()
  openAccepted(sessions, 'ours', session('u'))
  const faults: unknown[] = []
  const messages = ['unknown requestId', 'missing scope: operator.admin']
  for (const message of messages) {
    const clock = new FakeClock()
    const surfaces = new Surfaces({
      sessions,
      clock,
      channel: {
        async call(method) {
          if (method === 'node.pair.list') return { pending: [{ requestId: 'r', nodeId: 'ours' }] }
          throw new CallRefused(method, 'INVALID_REQUEST', message)
        },
      },
      onWithheld: () => {},
      onDropped: () => {},
      onFault: (error) => faults.push((error as Error).message),
    })
    surfaces.check()
    await settle()
    surfaces.stop()
  }
  t.strictSame(faults, ['node.pair.approve: INVALID_REQUEST missing scope: operator.admin'])
})

test('nothing is approved for a session that the gateway has not accepted yet', async (t) => {
  const sessions = new Sessions()
  const clock = new FakeClock()
  const opened = sessions.open('ours', session('u'))
  const approved: unknown[] = []
  const surfaces = new Surfaces({
    sessions,
    clock,
    channel: {
      async call(method, params) {
        if (method === 'node.pair.list') return { pending: [{ requestId: 'r', nodeId: 'ours' }] }
        return method === 'node.pair.approve' ? approved.push(params) : undefined
      },
    },
    onWithheld: () => {},
    onDropped: () => {},
    onFault: () => {},
  })
  surfaces.check()
  await settle()
  t.strictSame(approved, [], 'the gateway would not apply it')
  opened.bindSocket(Object.assign(new EventEmitter(), { closed: false }) as unknown as Socket)
  surfaces.check()
  await clock.advanceAsync(1000)
  await settle()
  t.strictSame(approved, [{ requestId: 'r' }])
  surfaces.stop()
})

test('a session that the gateway dropped over the approval of its surface is ended, and no other', async (t) => {
  const refusal = new CallRefused('node.describe', 'INVALID_REQUEST', 'unknown method')
  const answers: readonly (readonly [unknown, readonly string[]])[] = [
    [{ nodeId: 'ours', connected: false }, ['dropped ours', 'gateway_gone']],
    [{ nodeId: 'ours', connected: true }, []],
    [{ nodeId: 'ours' }, []],
    [refusal, []],
    ['replaced', []],
  ]
  for (const [answer, expected] of answers) {
    const sessions = new Sessions()
    const seen: string[] = []
    openAccepted(sessions, 'ours', { ...session('u'), revoke: (code) => seen.push(code) })
    const surfaces = new Surfaces({
      sessions,
      clock: new FakeClock(),
      channel: {
        async call(method) {
          if (method === 'node.pair.list') return { pending: [{ requestId: 'r', nodeId: 'ours' }] }
          if (method === 'node.pair.approve') return {}
          if (answer === refusal) throw refusal
          if (answer !== 'replaced') return answer
          sessions.open('ours', session('u'))
          seen.length = 0
          return { connected: false }
        },
      },
      onWithheld: () => {},
      onDropped: (deviceId) => seen.push(`dropped ${deviceId}`),
      onFault: (error) => t.fail(String(error)),
    })
    surfaces.check()
    await settle()
    surfaces.stop()
    t.strictSame(seen, expected, JSON.stringify(answer))
  }
})

test('a surface whose approval failed is looked at again, after a pause', async (t) => {
  const clock = new FakeClock()
  const sessions = new Sessions()
  openAccepted(sessions, 'ours', {
    pod: POD,
    podUid: 'u',
    allowedCommands: () => ['*'],
    revoke: () => {},
  })
  const faults: unknown[] = []
  let approvals = 0
  const surfaces = new Surfaces({
    sessions,
    clock,
    channel: {
      async call(method) {
        if (method === 'node.pair.list') {
          return { pending: [{ requestId: `of-${approvals}`, nodeId: 'ours' }] }
        }
        if (method === 'node.describe') return {}
        approvals += 1
        if (approvals === 1) throw new Fault('operator_unavailable', 'unknown requestId')
        return {}
      },
    },
    onWithheld: () => {},
    onDropped: () => {},
    onFault: (error) => faults.push(error),
  })
  surfaces.check()
  await settle()
  t.equal(faults.length, 1)
  clock.advance(2999)
  await settle()
  t.equal(approvals, 1)
  clock.advance(1)
  await settle()
  t.equal(approvals, 2)
  clock.advance(60_000)
  await settle()
  t.equal(approvals, 2, 'and then it rests')
  surfaces.stop()
  t.equal(clock.pending, 0)
})
