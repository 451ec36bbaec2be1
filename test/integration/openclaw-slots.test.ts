/** Hosted sessions in the `openclaw` protocol: what the gateway tells shows in metrics, log and doctor. */

import { test, type Test } from 'tap'
import { run as doctor } from '@openclaw-k8s/auth-sidecar/commands/doctor.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { SECRET, startOpenClawRig } from '../kit/openclaw-rig.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import { runCommand } from '../kit/run-command.ts'
import { waitUntil } from '../kit/wait.ts'

const INTERVAL_MS = 15_000
/** No reconnect of the operator channel takes longer. */
const RECONNECT_MS_MAX = 2000

const hostRow = (deviceId: string) => ({
  id: `node:${deviceId}`,
  type: 'node',
  status: 'available',
  sessionHost: true,
  workerSlots: { total: 4, available: 3 },
})

type Answer = (devices: readonly string[]) => unknown

/** A gateway that answers `environments.list` as the test wants, or does not know it. */
const setUp = async (t: Test, options: { answer?: Answer; set?: readonly string[] } = {}) => {
  const clock = new FakeClock()
  const devices = createPairedDevices(SECRET)
  const chosen: { answer: Answer | undefined; asked: number; announce: () => void } = {
    answer: options.answer,
    asked: 0,
    announce: () => {},
  }
  const list = {
    'environments.list': (
      _params: Readonly<Record<string, unknown>>,
      operator: { readonly send: (text: string) => void },
    ) => {
      chosen.asked += 1
      chosen.announce = () =>
        operator.send('{"type":"event","event":"node.runnerInventory.changed","payload":{}}')
      return chosen.answer?.([...devices.paired.keys()])
    },
  }
  const known = options.answer === undefined ? {} : list
  const rig = await startOpenClawRig({
    clock,
    devices,
    gateway: { methods: { ...devices.gateway.methods, ...known } },
    ...(options.set === undefined ? {} : { set: options.set }),
  })
  t.teardown(rig.stop)
  const hosting = async () =>
    Object.fromEntries(
      [...(await rig.metrics())]
        .filter(([name]) => /^openclaw_k8s_(session_(slots|hosting)|connected)/.test(name))
        .map(([name, value]) => [
          name.replace(/^openclaw_k8s_|namespace="openclaw",?/g, ''),
          value,
        ]),
    )
  const examine = async (admin = new URL(rig.adminUrl).host) => {
    const settings = [
      `listen.admin=${admin}`,
      `gateway.url=${rig.gateway.url}`,
      'gateway.protocol=openclaw',
      'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}]',
    ]
    const { stdout } = await runCommand(doctor, { clock, set: settings })
    return stdout.split('\n').filter((line) => line.includes('] session-hosting: '))
  }
  return { rig, clock, chosen, hosting, examine }
}

test('the slots of a worker show once the gateway says that it hosts, and the offer is reported', async (t) => {
  const { rig, clock, chosen, hosting, examine } = await setUp(t, {
    answer: (devices) => ({ environments: [...devices, 'f'.repeat(64)].map(hostRow) }),
  })
  await waitUntil(async () => 'session_hosting_forbidden{}' in (await hosting()))
  const none = { 'session_slots{state="free"}': 0, 'session_slots{state="used"}': 0 }
  t.match(await hosting(), { 'connected_workers{}': 0, ...none, 'session_hosting_forbidden{}': 0 })
  t.strictSame(await examine(), ['[ok] session-hosting: no worker offers it against the policy'])

  const node = await rig.startNode()
  t.equal(node.answer?.ok, true)
  chosen.announce()
  await clock.advanceAsync(INTERVAL_MS)
  await waitUntil(async () => (await hosting())['session_slots{state="free"}'] === 3)
  t.strictSame(await hosting(), {
    'connected_workers{}': 1,
    'session_slots{state="free"}': 3,
    'session_slots{state="used"}': 1,
    'session_hosting_forbidden{}': 1,
  })
  const reports = rig.log.filter((line) => line.includes('which the policy forbids'))
  t.equal(reports.length, 1)
  t.match(JSON.parse(reports[0] ?? ''), { level: 'warn', count: 1, pods: ['openclaw/worker-a'] })
  t.strictSame(await examine(), [
    '[warn] session-hosting: workers offer to host sessions, which the policy forbids: ' +
      '1 in namespace openclaw; a session placed there fails. Allow it with gateway.sessionHosting ' +
      'and allowSessionHosting, or run these nodes without --session-host.',
  ])

  node.end()
  await waitUntil(async () => (await hosting())['connected_workers{}'] === 0)
  t.match(await hosting(), { ...none, 'session_hosting_forbidden{}': 0 })
})

test('a gateway that does not know the list leaves the metrics absent', async (t) => {
  const { rig, clock, hosting, examine } = await setUp(t)
  await waitUntil(async () => (await fetch(`${rig.adminUrl}/readyz`)).ok)
  await rig.startNode()
  await clock.advanceAsync(10 * INTERVAL_MS)
  t.strictSame(await hosting(), { 'connected_workers{}': 1 })
  t.strictSame(await examine(), [
    '[ok] session-hosting: the gateway does not tell which workers offer it',
  ])
  t.strictSame(await examine('127.0.0.1:1'), [], 'nobody there')
  t.strictSame(await examine(new URL(rig.gateway.url).host), [], 'somebody else there')
})

test('an answer too long for the operator channel costs a reconnect, not the admissions', async (t) => {
  const filler = { id: `node:${'0'.repeat(64)}`, label: 'x'.repeat(1000) }
  const { rig, clock, chosen, hosting } = await setUp(t, {
    set: ['limits.messageBytes=64KiB'],
    answer: () => ({ environments: Array.from({ length: 100 }, () => filler) }),
  })
  await waitUntil(() => rig.log.some((line) => line.includes('the operator channel is down')))
  await clock.advanceAsync(RECONNECT_MS_MAX)
  await waitUntil(async () => (await fetch(`${rig.adminUrl}/readyz`)).ok)
  t.equal((await rig.startNode()).answer?.ok, true)
  t.equal(chosen.asked, 1, 'the new connection is not ended by the same question')
  t.strictSame(await hosting(), { 'connected_workers{}': 1 })
})
