/** However the watch is cut, no deletion is missed, no live pod is revoked, and no deleted pod gets in meanwhile. */

import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, describe, test } from 'node:test'
import type { WebSocket } from 'ws'
import { waitForProcess } from '../kit/wait.ts'
import { startClusterRig, type ClusterRig, type Pod } from './cluster-rig.ts'
import { JumpClock } from './jump-clock.ts'
import { findApiServer } from './own-cluster.ts'
import { startRelay, type Relay } from './relay.ts'
import { codeOf, endOf, startRig, verdictOf, type Rig } from './rig.ts'

const CUTS = 20
const RESTARTED_WITHIN_MS = 60_000
/** A silence after which the watch alone admits nobody. */
const SILENCE_MS = 2100
/** The longest life of a watch and its tolerance. */
const WATCH_LIFE_MS = 36_000
const GONE = /^1008 pod_(deleted|terminating)$/

type Member = { readonly pod: Pod; readonly token: string; readonly stream: WebSocket }

describe('watch', () => {
  let cluster: ClusterRig
  let relay: Relay
  let rig: Rig
  let keeper: Member
  const clock = new JumpClock()

  before(async () => {
    cluster = await startClusterRig()
    relay = await startRelay(cluster.config)
    rig = await startRig(cluster, {
      clock,
      apiServer: relay,
      // Pings follow the clock that jumps, and no pong could come in time.
      set: ['limits.idlePing=10m'],
    })
  })
  after(async () => {
    await rig?.stop()
    await relay?.stop()
    await cluster?.close()
  })
  beforeEach(async () => {
    keeper = await join()
  })
  afterEach(() => {
    keeper.stream.terminate()
  })

  const join = async (): Promise<Member> => {
    const pod = await cluster.createPod()
    const token = await cluster.mint({ pod })
    return { pod, token, stream: await rig.open(pod, token) }
  }

  const attempt = async ({ pod, token }: Member) => verdictOf(await rig.connect(pod, token))

  const assertKept = async () => {
    assert.equal(keeper.stream.readyState, keeper.stream.OPEN, 'no false revocation')
    assert.equal(await attempt(keeper), 'ok', 'no false refusal')
  }

  test('a watch that is dropped 20 times in a row misses no deletion and admits no deleted pod', async () => {
    for (let n = 0; n < CUTS; n += 1) {
      const victim = await join()
      const end = endOf(victim.stream)
      relay.hold()
      relay.cut('/pods')
      await relay.heldOne('/pods')
      await cluster.deletePod(victim.pod)
      assert.equal(await attempt(victim), 'pod_not_found', 'the API server is asked')
      assert.equal(await attempt(keeper), 'ok', 'a pod that lives gets in')
      relay.release()
      assert.match((await end).ended, GONE)
      assert.equal(await attempt(victim), 'pod_deleted')
    }
    await assertKept()
  })

  test('a watch that is black-holed without a reset ends by itself', async () => {
    const victim = await join()
    const end = endOf(victim.stream)
    relay.blackhole()
    await cluster.deletePod(victim.pod)
    await assertKept()
    assert.equal(victim.stream.readyState, victim.stream.OPEN, 'nobody could tell yet')
    clock.jump(WATCH_LIFE_MS)
    assert.match((await end).ended, GONE)
    await relay.watching('/serviceaccounts')
    await assertKept()
  })

  test('a black-holed watch admits no deleted pod, and ends by the answer that it should have given', async () => {
    const victim = await join()
    const end = endOf(victim.stream)
    relay.blackhole()
    await cluster.deletePod(victim.pod)
    clock.jump(SILENCE_MS)
    // That answer ends the watch, and the next one could tell of the end before it is said.
    relay.hold()
    assert.equal(await attempt(victim), 'pod_not_found', 'the API server is asked')
    relay.release()
    await assertKept()
    assert.match((await end).ended, GONE, 'without waiting for the end of the watch')
    clock.jump(WATCH_LIFE_MS)
    await relay.watching('/serviceaccounts')
    await assertKept()
  })

  test('a deletion during a restart of the API server is found when it is back', async (t) => {
    const server = findApiServer(cluster.config)
    if (server === undefined) return t.skip('only where the API server is a process of ours')
    const victim = await join()
    const end = endOf(victim.stream)
    server.kill()
    relay.hold()
    try {
      const outcome = await rig.connect(victim.pod, victim.token)
      assert.equal(codeOf(outcome), 'ok', 'a cached verdict of a pod last seen alive')
      if (outcome.ok) outcome.socket.terminate()
    } finally {
      server.start()
    }
    await waitForProcess('the API server', RESTARTED_WITHIN_MS, isServerReady)
    await cluster.deletePod(victim.pod)
    assert.equal(await attempt(victim), 'pod_not_found', 'reachable: it is asked')
    relay.release()
    assert.match((await end).ended, GONE)
    await assertKept()
  })

  // After the restart: a server that has run since the first object forgets nothing.
  test('a version too old for the API server (410) is followed by a list that finds the deletion', async () => {
    const victim = await join()
    const end = endOf(victim.stream)
    const earlier = relay.seen('/pods')
    relay.hold()
    relay.cut('/pods')
    await relay.heldOne('/pods')
    await cluster.deletePod(victim.pod)
    relay.forget()
    relay.release()
    await waitForProcess(
      'a 410 of the API server',
      10_000,
      () => relay.seen('/pods').gone > earlier.gone,
    )
    relay.remember()
    assert.match((await end).ended, GONE)
    assert.ok(relay.seen('/pods').lists > earlier.lists, 'listed again')
    await assertKept()
  })

  const isServerReady = async (): Promise<boolean> => {
    try {
      return (await cluster.api.call({ method: 'GET', path: '/readyz' })).status === 200
    } catch {
      return false
    }
  }
})
