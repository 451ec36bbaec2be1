/** A herd of workers reaches the gateway in turn: it never gets more handshakes at once than it can do. */

import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import { startOpenClawRig } from '../kit/openclaw-rig.ts'
import { startRig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'
import type { Connected, Refused } from '../kit/worker-client.ts'

const AT_THE_DOOR = { stream: 64, openclaw: 8 }
const CONNECT_MS = 5000
const SET = ['limits.streamsPerPod=1024', 'limits.pendingPerAddress=1024']

const clockFor = () => {
  const clock = new FakeClock()
  clock.advance(1)
  return clock
}

const codeOf = (outcome: Connected | Refused) => {
  if (!outcome.ok) return (outcome.body as { error: { type: string } }).error.type
  outcome.socket.terminate()
  return 'ok'
}

/** Enough time for the next workers to reach the gateway, if nothing held them back. */
const giveTime = async () => {
  for (let n = 0; n < 200; n += 1) await turn()
}

const tally = (codes: readonly string[]) =>
  Object.fromEntries(
    [...new Set(codes)].map((code) => [code, codes.filter((each) => each === code).length]),
  )

test('the gateway’s time for a worker counts from its turn, and a stalled worker blocks only its own place', async (t) => {
  const clock = clockFor()
  const rig = await startRig({ clock, set: SET })
  t.teardown(() => rig.stop())
  const token = rig.mint({ pod: rig.createPod() })
  rig.gateway.setBehavior('stall')
  const herd = Array.from({ length: AT_THE_DOOR.stream + 6 }, async () =>
    codeOf(await rig.connect({ token })),
  )
  const streams = async () => (await rig.metrics()).get('openclaw_k8s_streams')
  await waitUntil(async () => (await streams()) === herd.length)
  await waitUntil(() => rig.gateway.handshakes.length >= AT_THE_DOOR.stream)
  await giveTime()
  t.equal(rig.gateway.handshakes.length, AT_THE_DOOR.stream)
  rig.gateway.setBehavior('accept')
  await clock.advanceAsync(CONNECT_MS)
  t.strictSame(tally(await Promise.all(herd)), { gateway_unreachable: AT_THE_DOOR.stream, ok: 6 })
})

test('the same holds for nodes, of which fewer are let in at once', async (t) => {
  const clock = clockFor()
  const rig = await startOpenClawRig({ clock, set: SET })
  t.teardown(() => rig.stop())
  await rig.gateway.waitForHandshake(1)
  await rig.untilReady()
  const others = rig.gateway.handshakes.length
  rig.gateway.setBehavior('stall')
  const herd = Array.from({ length: AT_THE_DOOR.openclaw + 2 }, async (_, nth) => {
    const node = await rig.startNode(`worker-${nth}`, `127.0.0.${20 + nth}`)
    node.socket.terminate()
    return node.answer?.ok === true ? 'ok' : 'refused'
  })
  const atTheDoor = () => rig.gateway.handshakes.length - others
  const streams = async () => (await rig.metrics()).get('openclaw_k8s_streams')
  await waitUntil(async () => (await streams()) === herd.length)
  await waitUntil(() => atTheDoor() >= AT_THE_DOOR.openclaw)
  await giveTime()
  t.equal(atTheDoor(), AT_THE_DOOR.openclaw)
  rig.gateway.setBehavior('accept')
  await clock.advanceAsync(CONNECT_MS)
  t.strictSame(tally(await Promise.all(herd)), { refused: AT_THE_DOOR.openclaw, ok: 2 })
})
