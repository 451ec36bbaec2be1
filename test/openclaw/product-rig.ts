/** The whole line on one machine: API server, real gateway, recording relay, sidecar, and its pods. */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startKubeApi } from '../kit/kube-api.ts'
import { waitForProcess } from '../kit/wait.ts'
import { GATEWAY_SECRET, startGateway } from './gateway.ts'
import { connectLightNode, createDevice, openLightNode } from '../kit/light-node.ts'
import type { LightNodeOptions } from '../kit/light-node.ts'
import { asksBeforeItRuns, findLacks, hasSessionHosting } from './lacks.ts'
import { startModel } from './model.ts'
import { podAddress, PODS_MAX } from '../kit/namespace.ts'
import type { Operator } from './operator.ts'
import { startRealNode, type RealNode, type RealNodeOptions } from './real-node.ts'
import { startConnect } from './connect-process.ts'
import { startRelay } from './relay.ts'
import { startSidecar } from './sidecar.ts'
import type { SuiteRun } from './suite-plan.ts'

export const NAMESPACE = 'openclaw'
export const WORKER = 'openclaw-worker'
/** A ServiceAccount whose workers may offer `system.which` and nothing else. */
export const RESTRICTED = 'openclaw-restricted'

const PORTS = {
  gateway: 18_789,
  relay: 28_789,
  model: 38_789,
  workers: 18_443,
  admin: 9_464,
  connect: 38_000,
}
const AUDIENCE = 'openclaw-gateway'
const TOKEN_LIFE_S = 3600
/** A real node takes five seconds to start on an idle machine, and many times that on a busy one. */
const USABLE_LIMIT_MS = 150_000
const USERS = [WORKER, RESTRICTED].map((name) => `system:serviceaccount:${NAMESPACE}:${name}`)

export const TRUST = {
  allowedIdentities: [
    { namespace: NAMESPACE, serviceAccount: WORKER, allowedCommands: ['*'] },
    { namespace: NAMESPACE, serviceAccount: RESTRICTED, allowedCommands: ['system.which'] },
  ],
}

export type RigPod = {
  readonly name: string
  readonly address: string
  readonly url: string
  /** A token for this pod and the gateway's audience. */
  readonly mint: (expiresInS?: number) => string
}
export type ProductRig = Awaited<ReturnType<typeof startProductRig>>

/** `main` runs in place of the sidecar's sources, such as a bundle of them. */
export const startProductRig = async (run: SuiteRun, main?: string) => {
  const started: (() => Promise<unknown>)[] = []
  /** Newest first; also when the rig could not be built in full. */
  const stop = async (): Promise<void> => {
    for (const end of started.toReversed()) await end()
  }
  try {
    return { ...(await buildRig(run, started, main)), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

const buildRig = async (run: SuiteRun, started: (() => Promise<unknown>)[], main?: string) => {
  const { mode } = run
  const directory = await mkdtemp(join(tmpdir(), 'product-rig-'))
  started.push(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }))
  const api = await startKubeApi()
  started.push(api.stop)
  const kubernetes = { apiServer: api.url, ...(await api.files(join(directory, 'kube'))) }
  const model = await startModel(PORTS.model)
  started.push(model.stop)
  const gateway = await startGateway({
    product: run.gateway,
    modelUrl: hasSessionHosting(run.gateway) ? model.url : undefined,
    mode,
    port: PORTS.gateway,
    home: join(directory, 'gateway'),
    users: USERS,
  })
  started.push(() => gateway.stop())
  const relay = await startRelay(PORTS.relay, PORTS.gateway)
  started.push(relay.stop)
  const sidecarOptions = {
    gatewayUrl: `ws://127.0.0.1:${PORTS.relay}`,
    mode,
    secret: GATEWAY_SECRET,
    kubernetes: {
      apiServer: kubernetes.apiServer,
      caFile: kubernetes.caFile,
      tokenFile: kubernetes.tokenFile,
    },
    trust: TRUST,
    ...(main === undefined ? {} : { main }),
  }
  const sidecar = await startSidecar({
    ...sidecarOptions,
    directory: join(directory, 'sidecar'),
    ports: { workers: PORTS.workers, admin: PORTS.admin },
  })
  started.push(sidecar.stop)
  let operator: Operator = await gateway.connectOperator()
  started.push(() => operator.close())
  const lacks = await findLacks({
    gatewayUrl: gateway.url,
    operator,
    address: podAddress(PODS_MAX),
    gateway: run.gateway,
    node: run.node,
  })
  const nodeOptions = { product: run.node, runsUnasked: asksBeforeItRuns(run.node) }
  const realNodes: RealNode[] = []
  started.push(() => Promise.all(realNodes.map((node) => node.stop())))
  const minted: string[] = []
  const reached = new Set<RealNode>()
  let slowestStartMs = 0
  let podsMade = 0
  let connects = 0

  /** An address that was not used before, while there are any. */
  const takeAddress = (): string => {
    podsMade += 1
    return podAddress(podsMade)
  }
  const createPod = (
    name: string,
    serviceAccount = WORKER,
    address: string = takeAddress(),
  ): RigPod => {
    api.createPod({
      namespace: NAMESPACE,
      name,
      serviceAccount,
      ips: [address],
      nodeName: 'node-1',
    })
    return describePod(name, address)
  }
  const describePod = (name: string, address: string): RigPod => {
    const pod = api.getPod(NAMESPACE, name)
    if (pod === undefined) throw new Error(`there is no pod ${name}`)
    const mint = (expiresInS = TOKEN_LIFE_S) => {
      const token = api.mintToken({ pod, audiences: [AUDIENCE], expiresInS })
      minted.push(token)
      return token
    }
    return { name, address, mint, url: `ws://${address}:${PORTS.workers}` }
  }
  const find = async (podName: string) =>
    (await operator.nodes()).find(({ displayName }) => displayName === podName)
  /** A wait that failed reports the output of the node and the sidecar. */
  const explained = async <T>(podName: string, wait: () => Promise<T>): Promise<T> => {
    const node = realNodes.find(({ name }) => name === podName)
    try {
      const result = await wait()
      if (node !== undefined && !reached.has(node)) {
        reached.add(node)
        slowestStartMs = Math.max(slowestStartMs, performance.now() - node.startedAtMs)
      }
      return result
    } catch (error) {
      const said = [node?.said() ?? '', sidecar.tell()].join('\n--\n')
      throw new Error(`${String(error)}\n${said}`, { cause: error })
    }
  }
  const lightOptions = (pod: RigPod): LightNodeOptions => ({
    url: pod.url,
    localAddress: pod.address,
    device: createDevice(),
    auth: { token: pod.mint() },
  })

  return {
    mode,
    run,
    directory,
    api,
    gateway,
    relay,
    model,
    sidecar,
    ports: PORTS,
    /** From the start of a real node to its first use, the slowest so far, in milliseconds. */
    slowestStartMs: () => slowestStartMs,
    /** Every token a worker has had. */
    minted: minted as readonly string[],
    realNodes: realNodes as readonly RealNode[],
    /** A user the gateway's trusted proxy may name. */
    user: USERS[0] ?? '',
    /** What these versions do not have, for `testUnless`. */
    lacks,
    /** A running pod, at an address of its own unless one is given. */
    createPod,
    takeAddress,
    /** The pod that has this name and address now: another uid, other tokens. */
    podOf: ({ name, address }: RigPod): RigPod => describePod(name, address),
    deletePod: (pod: RigPod, gracePeriodSeconds = 0): void =>
      api.deletePod(NAMESPACE, pod.name, { gracePeriodSeconds }),
    operator: (): Operator => operator,
    /** After the gateway was restarted. */
    renewOperator: async (): Promise<void> => {
      operator = await gateway.connectOperator()
    },
    startRealNode: async (pod: RigPod, options: Partial<RealNodeOptions> = {}) => {
      const node = await startRealNode({
        ...nodeOptions,
        name: pod.name,
        home: join(directory, 'nodes', pod.name),
        address: pod.address,
        port: PORTS.workers,
        recipe: 'env-wrapper',
        token: pod.mint(),
        ...options,
      })
      realNodes.push(node)
      return node
    },
    /** `connect` in a pod, which dials from the pod's address, and a real node behind it. */
    startConnectedNode: async (pod: RigPod, lifeS?: number) => {
      connects += 1
      const listen = { host: '127.0.0.1', port: PORTS.connect + connects }
      const connect = await startConnect({
        directory: join(directory, 'connect', pod.name),
        gatewayUrl: pod.url,
        listen,
        token: pod.mint(lifeS),
      })
      started.push(connect.stop)
      const node = await startRealNode({
        ...nodeOptions,
        name: pod.name,
        home: join(directory, 'nodes', pod.name),
        address: listen.host,
        port: listen.port,
        recipe: 'connect',
        // Nobody reads it.
        token: '',
      })
      realNodes.push(node)
      return { connect, node }
    },
    openLightNode: (pod: RigPod, options: Partial<LightNodeOptions> = {}) =>
      openLightNode({ ...lightOptions(pod), ...options }),
    connectLightNode: (pod: RigPod, options: Partial<LightNodeOptions> = {}) =>
      explained(pod.name, () => connectLightNode({ ...lightOptions(pod), ...options })),
    /** Another sidecar before the same gateway, with its own device seed. */
    startSidecarBeside: async (options: Partial<Parameters<typeof startSidecar>[0]>) => {
      const beside = await startSidecar({
        ...sidecarOptions,
        directory: join(directory, 'sidecar-beside'),
        ports: { workers: PORTS.workers + 1, admin: PORTS.admin + 1 },
        ...options,
      })
      // Its test may not come to the end.
      started.push(() => beside.stop())
      return beside
    },
    /** The gateway's entry for a connected pod, once there is one. */
    connected: (podName: string, limitMs = USABLE_LIMIT_MS) =>
      explained(podName, () => {
        const what = `the gateway lists ${podName} as connected`
        return waitForProcess(
          what,
          limitMs,
          async () => (await find(podName))?.connected === true && find(podName),
        )
      }),
    /** Waits until a command of the pod answers. */
    usable: (podName: string, limitMs = USABLE_LIMIT_MS) =>
      explained(podName, () =>
        waitForProcess(`${podName} answers system.which`, limitMs, async () => {
          const node = await find(podName)
          return node && operator.invoke(node.nodeId, 'system.which', { bins: ['uname'] })
        }),
      ),
    explained,
    devicesNamed: async (podName: string) =>
      (await operator.devices()).filter(({ displayName }) => displayName === podName),
  }
}
