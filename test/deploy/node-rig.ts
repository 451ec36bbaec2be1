/** Where pods run: a cluster with a ready node that has the images of `values-local.yaml`. */

import { setTimeout } from 'node:timers/promises'
import { startDeployRig, type DeployRig } from './deploy-rig.ts'

const LOCAL = ['localhost/openclaw:local', 'localhost/openclaw-auth-sidecar:local']
/** A short drain, for the time a test has. */
export const QUICK: readonly string[] = [
  '--set=sidecar.config.drain.window=4s',
  '--set=gateway.preStopSleepSeconds=6',
]
const ASKED_MAX = 15
const ASK_EVERY_MS = 5000

/** The rig, or the reason why there is none: the node has to have these images as well. */
export const startNodeRig = async (
  ...more: readonly string[]
): Promise<DeployRig | { readonly why: string }> => {
  const rig = await startDeployRig()
  if ('why' in rig) return rig
  const why = await missingAfterAll(rig, [...LOCAL, ...more])
  return why === undefined ? rig : { why }
}

type Node = {
  readonly status: {
    readonly conditions: readonly { readonly type: string; readonly status: string }[]
    readonly images?: readonly { readonly names?: readonly string[] }[]
  }
}

/** Why tests have no node. */
const missing = async (rig: DeployRig, images: readonly string[]): Promise<string | undefined> => {
  const nodes = JSON.parse(await rig.kubectl('get', 'nodes', '-o=json')) as {
    readonly items: readonly Node[]
  }
  const ready = nodes.items.filter(({ status }) =>
    status.conditions.some((each) => each.type === 'Ready' && each.status === 'True'),
  )
  if (ready.length === 0) return 'no node is ready'
  const names = ready
    .flatMap(({ status }) => status.images ?? [])
    .flatMap((each) => each.names ?? [])
  const absent = images.filter((image) => !names.includes(image))
  return absent.length === 0 ? undefined : `no node has ${absent.join(' and ')}`
}

/** A kubelet reports its images only now and then. */
const missingAfterAll = async (
  rig: DeployRig,
  images: readonly string[],
): Promise<string | undefined> => {
  let why = await missing(rig, images)
  for (let asked = 1; why !== undefined && asked < ASKED_MAX; asked += 1) {
    await setTimeout(ASK_EVERY_MS)
    why = await missing(rig, images)
  }
  return why
}
