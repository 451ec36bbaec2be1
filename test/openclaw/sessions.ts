/** Sessions that live as long as their pods: many at once, one to a pod, none left behind. */

import assert from 'node:assert/strict'
import { waitForProcess } from '../kit/wait.ts'
import { test } from './bounded-test.ts'
import {
  connectLightNode,
  createDevice,
  openLightNode,
  type Device,
  type LightNode,
} from '../kit/light-node.ts'
import { GATEWAY_SECRET } from './gateway.ts'
import { gatewayShareMs, headerValues, isRateLimited } from './relay.ts'
import { NAMESPACE, WORKER, type ProductRig, type RigPod } from './product-rig.ts'

const AT_ONCE = 20
/** Five times what the gateway's limiter lets one address do in a minute. */
const BEHIND_ONE_ADDRESS = 50
const LET_IN_A_MINUTE = 9
const CHURN = 100
const CHURN_AT_ONCE = 10
/** The promise is one second from the watch event; the gateway takes its own time on top. */
const GONE_LIMIT_MS = 30_000

type Timed = { readonly node: LightNode; readonly totalMs: number; readonly ownMs: number }

const median = (numbers: readonly number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN

const describe = (what: string, times: readonly Timed[]): string => {
  const total = times.map(({ totalMs }) => totalMs)
  const own = times.map(({ ownMs }) => ownMs)
  const worst = Math.max(...total)
  const parts = [`total p50 ${median(total).toFixed(0)} ms`, `max ${worst.toFixed(0)} ms`]
  return `${what}: connect to hello-ok ${parts.join(', ')}; the sidecar's share p50 ${median(own).toFixed(0)} ms`
}

export const testSessions = (rig: ProductRig): void => {
  /** From the first byte of the connection to hello-ok, and the part of it without the gateway. */
  const timed = async (pod: RigPod): Promise<Timed> => {
    const startedAt = performance.now()
    const node = await rig.connectLightNode(pod)
    const totalMs = performance.now() - startedAt
    const connection = rig.relay.connections.findLast((each) =>
      headerValues(each, 'x-forwarded-for').includes(pod.address),
    )
    assert.ok(connection !== undefined)
    return { node, totalMs, ownMs: totalMs - gatewayShareMs(connection) }
  }

  const gone = (name: string) =>
    waitForProcess(
      `the device of ${name} is gone`,
      GONE_LIMIT_MS,
      async () => (await rig.devicesNamed(name)).length === 0,
    )

  test(`${AT_ONCE} nodes at once are all usable`, async (t) => {
    const pods = Array.from({ length: AT_ONCE }, (_, i) => rig.createPod(`crowd-${i}`))
    const enrolled = await Promise.all(pods.map(timed))
    t.diagnostic(describe(`${AT_ONCE} at once, enrolled on the way`, enrolled))
    for (const { name } of pods) await rig.usable(name)
    for (const { node } of enrolled) node.end()
    await Promise.all(enrolled.map(({ node }) => node.closed))

    const again = await Promise.all(pods.map(timed))
    t.diagnostic(describe(`${AT_ONCE} at once, known devices`, again))
    for (const { name } of pods) await rig.usable(name)
    for (const { node } of again) node.end()

    const oneByOne: Timed[] = []
    for (const pod of pods) {
      const each = await timed(pod)
      oneByOne.push(each)
      each.node.end()
      await each.node.closed
    }
    t.diagnostic(describe('one after another, known devices', oneByOne))
    for (const { name } of pods) assert.equal((await rig.devicesNamed(name)).length, 1, name)
  })

  test(`${BEHIND_ONE_ADDRESS} new pods behind one address do not trip the limiter of the gateway`, async (t) => {
    const address = rig.takeAddress()
    const pods = Array.from({ length: BEHIND_ONE_ADDRESS }, (_, i) =>
      rig.createPod(`neighbor-${i}`, WORKER, address),
    )
    const entered: RigPod[] = []
    for (const pod of pods) {
      const node = await rig.openLightNode(pod)
      if ((await node.connect())?.ok === true) entered.push(pod)
      // The gateway would lock the address out: they come back, some each minute.
      else assert.equal((await node.closed).reason, 'too_many_enrolments', pod.name)
      node.end()
    }
    t.diagnostic(`${entered.length} of ${pods.length} at once`)
    assert.ok(entered.length >= LET_IN_A_MINUTE)
    const { bootstrapToken: isOlder } = rig.lacks
    if (isOlder !== undefined) assert.equal(entered.length, pods.length)
    // Also a known one comes from the same address: it would be locked out as well.
    const [known] = entered
    assert.ok(known !== undefined)
    const again = await rig.connectLightNode(known)
    await rig.usable(known.name)
    again.end()
    assert.deepEqual(rig.relay.connections.filter(isRateLimited), [])
    for (const pod of pods) rig.deletePod(pod)
    for (const { name } of pods) await gone(name)
  })

  test('a pod that is deleted loses its stream at once and its device record', async () => {
    const pod = rig.createPod('short-lived')
    const node = await rig.connectLightNode(pod)
    await rig.usable(pod.name)
    rig.deletePod(pod)
    assert.equal((await node.closed).code, 1008)
    await gone(pod.name)
  })

  test('a real node whose pod is deleted is out and stays out', async () => {
    const pod = rig.createPod('short-lived-real')
    const node = await rig.startRealNode(pod)
    await rig.usable(pod.name)
    rig.deletePod(pod)
    await gone(pod.name)
    const isListed = async () =>
      (await rig.operator().nodes()).some(({ displayName }) => displayName === pod.name)
    // The gateway lists a session until it has seen its connection end, which no removal waits for.
    await waitForProcess(
      `${pod.name} is not listed`,
      GONE_LIMIT_MS,
      async () => !(await isListed()),
    )
    await node.stop()
    assert.equal(await isListed(), false)
  })

  test(`${CHURN} pods created and deleted leave no record behind`, async () => {
    const before = (await rig.operator().devices()).length
    for (let made = 0; made < CHURN; made += CHURN_AT_ONCE) {
      const pods = Array.from({ length: CHURN_AT_ONCE }, (_, i) =>
        rig.createPod(`churn-${made + i}`),
      )
      const nodes = await Promise.all(pods.map((pod) => rig.connectLightNode(pod)))
      for (const pod of pods) rig.deletePod(pod)
      await Promise.all(nodes.map(({ closed }) => closed))
    }
    await waitForProcess(
      'the gateway has as many device records as before',
      GONE_LIMIT_MS,
      async () => (await rig.operator().devices()).length === before,
    )
    assert.deepEqual(await rig.operator().pendingDevices(), [])
  })

  test('a newer session of a pod displaces the older one, which is told to come back', async () => {
    const pod = rig.createPod('displaced')
    const device = createDevice()
    const older = await rig.connectLightNode(pod, { device })
    const newer = await rig.connectLightNode(pod, { device: createDevice() })
    assert.equal((await older.closed).code, 1012)
    assert.ok(await rig.usable(pod.name))
    assert.equal((await rig.devicesNamed(pod.name)).length, 1)
    newer.end()
  })

  test('a pod recreated under its name keeps one device record and works', async () => {
    const pod = rig.createPod('stateful-0')
    const first = await rig.connectLightNode(pod)
    rig.api.recreatePod(NAMESPACE, pod.name)
    await first.closed
    const recreated = rig.podOf(pod)
    const second = await rig.connectLightNode(recreated)
    await rig.usable(pod.name)
    assert.equal((await rig.devicesNamed(pod.name)).length, 1)
    second.end()
  })

  /** Enrolls a device as an operator would by hand, past the sidecar, the way every version has. */
  const enrollForeign = async (pod: RigPod): Promise<Device> => {
    const device = createDevice()
    const secret = { [rig.mode === 'token' ? 'token' : 'password']: GATEWAY_SECRET }
    const options = {
      url: rig.gateway.url,
      localAddress: '127.0.0.1',
      device,
      auth: secret,
      headers: {
        'x-forwarded-for': pod.address,
        'x-forwarded-proto': 'http',
        'x-forwarded-user': rig.user,
      },
      displayName: pod.name,
    }
    const asking = await openLightNode(options)
    const refusal = await asking.connect()
    assert.equal(refusal?.error?.details?.['code'], 'PAIRING_REQUIRED')
    await asking.closed
    const pending = await rig.operator().pendingDevices()
    const requestId = pending.find(({ deviceId }) => deviceId === device.id)?.requestId
    await rig.operator().call('device.pair.approve', { requestId })
    const enrolled = await connectLightNode(options)
    enrolled.end()
    return device
  }

  test('devices the sidecar did not enrol are left alone, even under the name of a pod', async () => {
    // Orphans on both sides of it show when the sidecar has judged the foreign device.
    const orphans = ['orphan-before', 'orphan-after'].map((name) => rig.createPod(name))
    const [before, after] = orphans
    assert.ok(before !== undefined && after !== undefined)
    const namesake = rig.createPod('namesake')
    await rig.connectLightNode(before)
    const { id } = await enrollForeign(namesake)
    await rig.connectLightNode(namesake)
    await rig.connectLightNode(after)
    assert.equal((await rig.devicesNamed(namesake.name)).length, 2)

    await rig.sidecar.stop('SIGKILL')
    for (const pod of [...orphans, namesake]) rig.deletePod(pod)
    await rig.sidecar.start()
    for (const { name } of orphans) await gone(name)
    const left = () => rig.devicesNamed(namesake.name)
    await waitForProcess(
      'one device of that name is left',
      30_000,
      async () => (await left()).length < 2,
    )
    assert.deepEqual(
      (await left()).map(({ deviceId }) => deviceId),
      [id],
    )
  })
}
