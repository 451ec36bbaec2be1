/** A serve rig whose sidecar writes where a test says, and workers that make it write. */

import type { Test } from 'tap'
import { findFreePort } from './free-port.ts'
import type { SidecarProcessOptions } from './sidecar-process.ts'
import { startServeRig, type ServeRig } from './serve-rig.ts'

type Process = Pick<SidecarProcessOptions, 'stdout' | 'stderr' | 'env'>

export const startOutputRig = async (
  t: Test,
  process: Process = {},
  set: readonly string[] = [],
) => {
  const [workers, admin] = [await findFreePort(), await findFreePort()]
  const rig = await startServeRig({ workers, admin, process, set })
  t.teardown(() => rig.close())
  return rig
}

/** A worker that is not allowed, from its own address: one audit line a second later. */
export const refuseOne = async (rig: ServeRig) => {
  const address = `127.0.1.${++refused}`
  const token = rig.mint({ pod: rig.createPod(`stranger-${refused}`, address, 'default') })
  await rig.connect(address, token)
}
let refused = 0
