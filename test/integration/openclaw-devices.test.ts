/** Device records in the `openclaw` protocol: enrolled with a pod, removed with it, and never too many. */

import { rmSync, writeFileSync } from 'node:fs'
import { test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import { SECRET, startOpenClawRig } from '../kit/openclaw-rig.ts'
import type { Pod } from '../kit/kube-store.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'

test('a deleted pod loses its stream and its record, and no other pod does', async (t) => {
  // No time passes: the deletion removes the record, not a later reconciliation.
  const rig = await startOpenClawRig({ clock: new FakeClock() })
  t.teardown(rig.stop)
  const foreign = { deviceId: 'f'.repeat(64), displayName: 'worker-a', clientId: 'node-host' }
  rig.devices.paired.set(foreign.deviceId, { device: foreign, commands: [] })
  const doomed = await rig.startNode('worker-a', '127.0.0.11')
  const other = await rig.startNode('worker-b', '127.0.0.12')
  t.strictSame(rig.devices.names(), ['worker-a', 'worker-a', 'worker-b'])
  rig.api.deletePod('openclaw', 'worker-a')
  t.match(await doomed.closed, { code: 1008, reason: 'pod_deleted' })
  await rig.devices.called('device.pair.remove', 1)
  t.strictSame(
    [...rig.devices.paired.keys()].map((deviceId) => deviceId === foreign.deviceId),
    [true, false],
    'the namesake that the sidecar did not enrol is still there',
  )
  t.equal(other.socket.readyState, 1)
  const again = await rig.openNode({ auth: { token: doomed.token } })
  t.match(await again.connect(), {
    ok: false,
    error: { details: { code: 'AUTH_TOKEN_MISMATCH' } },
  })
})

test('a hundred pods that come and go leave no record behind', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const numbers = Array.from({ length: 100 }, (_, n) => n)
  const nodes = await Promise.all(
    numbers.map((n) => rig.startNode(`worker-${n}`, `127.0.1.${n + 1}`)),
  )
  t.ok(nodes.every(({ answer }) => answer?.ok === true))
  t.equal(rig.devices.paired.size, 100)
  for (const n of numbers) rig.api.deletePod('openclaw', `worker-${n}`)
  await Promise.all(nodes.map(({ closed }) => closed))
  await rig.devices.called('device.pair.remove', 100)
  t.equal(rig.devices.paired.size, 0)
})

test('a pod re-created under its name is the same device', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const first = await rig.startNode()
  const [device] = rig.devices.paired.keys()
  rig.api.deletePod('openclaw', 'worker-a')
  await first.closed
  const second = await rig.startNode()
  t.equal(second.answer?.ok, true)
  t.strictSame([...rig.devices.paired.keys()], [device])
})

test('a restarted sidecar finds its devices, and removes those whose pods have gone', async (t) => {
  const devices = createPairedDevices(SECRET)
  const first = await startOpenClawRig({ devices })
  await first.startNode('worker-a', '127.0.0.11')
  await first.startNode('worker-b', '127.0.0.12')
  await first.stop()
  t.strictSame(devices.names(), ['worker-a', 'worker-b'])
  const minted = devices.listCalls('device.pair.setupCode').length

  let pod: Pod | undefined
  const second = await startOpenClawRig({
    devices,
    prepare(api) {
      pod = api.createPod({
        namespace: 'openclaw',
        name: 'worker-a',
        serviceAccount: 'openclaw-worker',
        ips: ['127.0.0.11'],
        nodeName: 'node-1',
      })
    },
  })
  t.teardown(second.stop)
  await devices.called('device.pair.remove', 1)
  t.strictSame(devices.names(), ['worker-a'])
  const token = second.mint(pod === undefined ? {} : { pod })
  const node = await second.openNode({ auth: { token } })
  t.equal((await node.connect())?.ok, true)
  t.strictSame(devices.names(), ['worker-a'])
  t.equal(devices.listCalls('device.pair.setupCode').length, minted, 'it needed no enrolment')
})

test('without ephemeral sessions the record stays when its pod goes', async (t) => {
  const devices = createPairedDevices(SECRET)
  const rig = await startOpenClawRig({ devices, set: ['k8sTrust.ephemeralSessions=false'] })
  t.teardown(rig.stop)
  const node = await rig.startNode()
  rig.api.deletePod('openclaw', 'worker-a')
  await node.closed
  // The enrolment of a later pod comes after anything the deletion would have caused.
  await rig.startNode('worker-b', '127.0.0.12')
  t.strictSame(devices.names(), ['worker-a', 'worker-b'])
  t.equal(devices.listCalls('device.pair.remove').length, 0)
})

test('a device that was removed behind our back is enrolled again', async (t) => {
  const rig = await startOpenClawRig()
  t.teardown(rig.stop)
  const first = await rig.startNode()
  first.end()
  await first.closed
  rig.devices.paired.clear()
  const node = await rig.openNode({ auth: { token: first.token } })
  t.equal((await node.connect())?.ok, true)
  t.equal(rig.devices.paired.size, 1)
  t.equal(rig.devices.listCalls('device.pair.remove').length, 0)
})

test('a device that the gateway takes for another machine’s is enrolled again, once', async (t) => {
  const devices = createPairedDevices(SECRET)
  let isPinned = false
  const rig = await startOpenClawRig({
    devices,
    gateway: {
      pair(connect, params, connection) {
        const isKnown = devices.paired.has(connect.device?.id ?? '')
        if (isPinned && isKnown) return { code: 'PAIRING_REQUIRED', message: 'metadata-upgrade' }
        return devices.gateway.pair?.(connect, params, connection)
      },
    },
  })
  t.teardown(rig.stop)
  const first = await rig.startNode()
  first.end()
  await first.closed
  isPinned = true
  const node = await rig.openNode({ auth: { token: first.token } })
  t.equal((await node.connect())?.ok, true)
  t.equal(devices.listCalls('device.pair.remove').length, 1)
  t.equal(devices.paired.size, 1)
})

test('a surface that widens is approved, within allowedCommands', async (t) => {
  const rig = await startOpenClawRig({
    set: [
      'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker, allowedCommands: [system.*]}]',
    ],
  })
  t.teardown(rig.stop)
  const first = await rig.startNode('worker-a', '127.0.0.11', { commands: ['system.which'] })
  first.end()
  await first.closed
  const commands = ['system.which', 'system.run', 'terminal.upload']
  const node = await rig.openNode({ auth: { token: first.token }, commands })
  t.equal((await node.connect())?.ok, true)
  await rig.devices.called('node.pair.approve', 1)
  t.equal(rig.devices.pending.size, 0)
  const connects = rig.gateway.received
    .map(({ data }) => JSON.parse(data.toString()) as { params?: { commands?: string[] } })
    .flatMap(({ params }) => (params?.commands === undefined ? [] : [params.commands]))
  t.strictSame(connects, [['system.which'], ['system.which', 'system.run']])
})

test('while the operator channel is down workers are asked to come back, and the sidecar is unready', async (t) => {
  const rig = await startOpenClawRig({ set: ['gateway.connectTimeout=100ms'] })
  t.teardown(rig.stop)
  const before = await rig.startNode()
  before.end()
  await before.closed
  rmSync(rig.secretFile)
  const operator = [...rig.gateway.connections].find(
    ({ handshake }) => handshake.headers['x-forwarded-for'] === undefined,
  )
  operator?.terminate()
  await operator?.closed
  const node = await rig.openNode({ auth: { token: before.token } })
  await node.connect()
  t.match(await node.closed, { code: 1013 })
  const ready = await fetch(`${rig.adminUrl}/readyz?verbose`)
  t.equal(ready.status, 503)
  t.match(await ready.text(), /operator/)
  writeFileSync(rig.secretFile, SECRET)
  await rig.gateway.waitForMessage()
  const after = await rig.openNode({ auth: { token: before.token } })
  t.equal((await after.connect())?.ok, true, 'the secret is read again')
})

test('behind a trusted proxy the owner shows the password, and a known node only its headers', async (t) => {
  const devices = createPairedDevices(SECRET)
  const rig = await startOpenClawRig({
    devices,
    set: ['gateway.auth.mode=trusted-proxy'],
    gateway: { authMode: 'trusted-proxy' },
  })
  t.teardown(rig.stop)
  const first = await rig.startNode()
  t.equal(first.answer?.ok, true)
  first.end()
  await first.closed
  const node = await rig.openNode({ auth: { token: first.token } })
  t.equal((await node.connect())?.ok, true)
  t.match(authsOf(rig), [{ password: SECRET }, { bootstrapToken: String }, undefined])
  t.equal(devices.paired.size, 1)
})

test('a gateway with a password gets it as a password, from the owner and for a known node', async (t) => {
  const devices = createPairedDevices(SECRET)
  const rig = await startOpenClawRig({
    devices,
    set: ['gateway.auth.mode=password'],
    gateway: { authMode: 'password' },
  })
  t.teardown(rig.stop)
  const first = await rig.startNode()
  t.equal(first.answer?.ok, true)
  first.end()
  await first.closed
  const node = await rig.openNode({ auth: { token: first.token } })
  t.equal((await node.connect())?.ok, true)
  t.match(authsOf(rig), [{ password: SECRET }, { bootstrapToken: String }, { password: SECRET }])
})

/** What each `connect` showed the gateway, in order. */
const authsOf = ({ gateway }: Awaited<ReturnType<typeof startOpenClawRig>>) =>
  gateway.received
    .map(
      ({ data }) => JSON.parse(data.toString()) as { method?: string; params?: { auth?: object } },
    )
    .filter(({ method }) => method === 'connect')
    .map(({ params }) => params?.auth)
