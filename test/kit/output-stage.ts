/** A stage whose sidecar writes where a test says, and workers that make it write. */

import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import type { Test } from 'tap'
import type { SidecarProcessOptions } from '../demo/sidecar-process.ts'
import { openStage, type Stage } from '../demo/stage.ts'

const findFreePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

type Process = Pick<SidecarProcessOptions, 'stdout' | 'stderr' | 'env'>

export const openStageFor = async (t: Test, process: Process = {}, set: readonly string[] = []) => {
  const [workers, admin] = [await findFreePort(), await findFreePort()]
  const stage = await openStage({ workers, admin, process, set })
  t.teardown(() => stage.close())
  return stage
}

/** A worker that is not listed, from an address of its own: one audit line a second later. */
export const refuseOne = async (stage: Stage) => {
  const address = `127.0.1.${++refused}`
  const token = stage.mint({ pod: stage.createPod(`stranger-${refused}`, address, 'default') })
  await stage.connect(address, token)
}
let refused = 0
