/** Real nodes behind `connect`: no token, no configuration, and no restart when one expires. */

import assert from 'node:assert/strict'
import { waitForProcess } from '../kit/wait.ts'
import { test } from './bounded-test.ts'
import { PAUSING_CODES, type RealNode } from './real-node.ts'
import type { ProductRig, RigPod } from './product-rig.ts'

/** Nodes come back within their own backoff, which ends at 30 s. */
const BACK_LIMIT_MS = 120_000
/** Long enough for a real node to start and connect, as slow as the machine may be. */
const LIFE_S_MIN = 30
const LIFE_STARTS = 2
const POD = 'worker-connect'

type Connected = Awaited<ReturnType<ProductRig['startConnectedNode']>>

const assertUndisturbed = ({ connect, node }: Connected): void => {
  assert.equal(node.exits.length, 0, `the node ended:\n${node.said()}`)
  assert.ok(!connect.hasExited(), `connect ended:\n${connect.tell()}`)
  assertNeverPaused(node)
}

const assertNeverPaused = (node: RealNode): void => {
  for (const code of PAUSING_CODES) assert.ok(!node.said().includes(code), code)
}

export const testConnect = (rig: ProductRig): void => {
  let connected: Connected & { readonly pod: RigPod; readonly expiresAtMs: number }

  test('a real node behind connect has no token and no configuration, and is usable', async () => {
    const pod = rig.createPod(POD)
    const startsS = Math.ceil((LIFE_STARTS * rig.slowestStartMs()) / 1000)
    const lifeS = Math.max(LIFE_S_MIN, startsS)
    const expiresAtMs = Date.now() + lifeS * 1000
    connected = { ...(await rig.startConnectedNode(pod, lifeS)), pod, expiresAtMs }
    await rig.usable(POD)
    assertUndisturbed(connected)
  })

  test('a gateway restart after the token expired restarts no node behind connect', async () => {
    const { connect, pod, expiresAtMs } = connected
    const leftMs = Math.max(0, expiresAtMs - Date.now())
    await waitForProcess('the token has expired', leftMs + 5000, () => Date.now() > expiresAtMs)
    assertUndisturbed(connected)
    await connect.rotate(pod.mint())
    await rig.operator().close()
    assert.equal((await rig.gateway.stop('SIGTERM')).code, 0)
    await rig.gateway.start()
    await rig.renewOperator()
    await rig.usable(POD, BACK_LIMIT_MS)
    assertUndisturbed(connected)
    assert.equal((await rig.devicesNamed(POD)).length, 1)
  })

  test('a sidecar that is stopped, killed and started again restarts no node behind connect', async () => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      await rig.sidecar.stop(signal)
      await rig.sidecar.start()
      await rig.usable(POD, BACK_LIMIT_MS)
      assertUndisturbed(connected)
    }
  })

  test('a pod that is deleted is out behind connect, too', async () => {
    const { pod, node, connect } = connected
    rig.deletePod(pod)
    await waitForProcess('its device record is gone', BACK_LIMIT_MS, async () => {
      return (await rig.devicesNamed(POD)).length === 0
    })
    assert.ok(!connect.hasExited())
    await node.stop()
    await connect.stop()
  })
}
