/** A rig of the `openclaw` protocol: a gateway with pairing, and nodes that speak it. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'
import { createDevice, openLightNode, type LightNodeOptions } from './light-node.ts'
import { createAuthority } from './authority.ts'
import { createPairedDevices, type PairedDevices } from './paired-devices.ts'
import { startRig, type RigOptions } from './rig.ts'

export const SECRET = 'the-secret-of-the-gateway-itself'
const SEED = 'a-seed-of-more-than-sixteen-bytes'
/** Stands in for loopback, since the pods here are 127.0.0.x too. */
export const LOCAL_ADDRESS = '127.0.0.1'

export type OpenClawRigOptions = {
  readonly set?: readonly string[]
  readonly clock?: Clock
  readonly prepare?: RigOptions['prepare']
  readonly gateway?: RigOptions['gateway']
  /** Unless said otherwise, only `LOCAL_ADDRESS` is. */
  readonly isLocalAddress?: RigOptions['isLocalAddress']
  /** Serves the worker port over TLS, under `ca`. */
  readonly isTls?: boolean
  /** Taken over from another rig, as a restarted sidecar finds them. */
  readonly devices?: PairedDevices
}

export type OpenClawRig = Awaited<ReturnType<typeof startOpenClawRig>>

export const startOpenClawRig = async (options: OpenClawRigOptions = {}) => {
  const { clock, devices = createPairedDevices(SECRET), set = [] } = options
  const directory = await mkdtemp(join(tmpdir(), 'openclaw-rig-'))
  const secretFile = join(directory, 'token')
  const seedFile = join(directory, 'seed')
  await writeFile(secretFile, `${SECRET}\n`)
  await writeFile(seedFile, `${SEED}\n`)
  const { ca, flags } = options.isTls === true ? await issueTls(directory) : { ca: '', flags: [] }
  const rig = await startRig({
    gateway: { ...devices.gateway, ...options.gateway },
    ...(clock === undefined ? {} : { clock }),
    ...(options.prepare === undefined ? {} : { prepare: options.prepare }),
    isLocalAddress: options.isLocalAddress ?? ((address) => address === LOCAL_ADDRESS),
    set: [
      'gateway.protocol=openclaw',
      `gateway.auth.secretFile=${secretFile}`,
      `gateway.deviceSeedFile=${seedFile}`,
      ...flags,
      ...set,
    ],
  })

  const openNode = (node: Partial<LightNodeOptions> = {}) =>
    openLightNode({
      url: rig.url,
      localAddress: '127.0.0.11',
      device: createDevice(),
      ca,
      ...node,
    })

  return {
    ...rig,
    devices,
    secretFile,
    ca,
    /** The node is open and was challenged; it has not said anything yet. */
    openNode,
    /** A pod, its token, and a node in it that has sent its `connect`. */
    startNode: async (
      name = 'worker-a',
      ip = '127.0.0.11',
      node: Partial<LightNodeOptions> = {},
    ) => {
      const pod = rig.createPod(name, ip)
      const token = rig.mint({ pod })
      const open = await openNode({ localAddress: ip, auth: { token }, ...node })
      const answer = await open.connect()
      return { ...open, pod, token, answer }
    },
    stop: async () => {
      await rig.stop()
      await rm(directory, { recursive: true })
    },
  }
}

/** A certificate for 127.0.0.1, and the settings that make the worker port use it. */
export const issueTls = async (directory: string) => {
  const authority = await createAuthority()
  const { cert, key } = await authority.issue({ commonName: 'sidecar', hosts: ['127.0.0.1'] })
  const certFile = join(directory, 'tls.crt')
  const keyFile = join(directory, 'tls.key')
  await writeFile(certFile, cert)
  await writeFile(keyFile, key)
  return { ca: authority.cert, flags: [`listen.tls={certFile: ${certFile}, keyFile: ${keyFile}}`] }
}
