/** The whole line of admission over a cluster in this process: each step is counted, and can be interrupted. */

import type { IncomingMessage } from 'node:http'
import { systemNetwork } from '@openclaw-k8s/auth-sidecar/lib/network.ts'
import type { Cluster } from '@openclaw-k8s/auth-sidecar/compose/cluster.ts'
import { composeObserve } from '@openclaw-k8s/auth-sidecar/compose/observe.ts'
import { composeLine } from '@openclaw-k8s/auth-sidecar/compose/line.ts'
import { LiveConfig } from '@openclaw-k8s/auth-sidecar/compose/live-config.ts'
import type { Runtime } from '@openclaw-k8s/auth-sidecar/compose/runtime.ts'
import { composeWorkerPort } from '@openclaw-k8s/auth-sidecar/compose/worker-port.ts'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import type { Config } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import type { Dialect } from '@openclaw-k8s/auth-sidecar/dialect/dialect.ts'
import { createStreamDialect } from '@openclaw-k8s/auth-sidecar/dialect/stream.ts'
import type { KubeRequest } from '@openclaw-k8s/auth-sidecar/kube/client.ts'
import type { OpenWatch } from '@openclaw-k8s/auth-sidecar/kube/watch-stream.ts'
import { createLog } from '@openclaw-k8s/auth-sidecar/observe/log.ts'
import type { MetricSources } from '@openclaw-k8s/auth-sidecar/observe/metric-sources.ts'
import type { Recorder } from '@openclaw-k8s/auth-sidecar/observe/recorder.ts'
import { Semaphore } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'
import { createAssertionSigner } from '@openclaw-k8s/auth-sidecar/tunnel/assertion.ts'
import {
  createGatewayDialer,
  type GatewayDialer,
} from '@openclaw-k8s/auth-sidecar/tunnel/gateway-dialer.ts'
import { FakeClock } from './fake-clock.ts'
import { FakeWatch } from './fake-collections.ts'
import { answerCall, targetOf, type Backend } from './kube-routes.ts'
import { KubeStore, type KubeEvent, type Pod } from './kube-store.ts'
import { mintToken, type KeyRing } from './kube-tokens.ts'
import { waitUntil } from './wait.ts'
import { createWorkloads } from './kube-workloads.ts'

const ISSUER = 'https://kubernetes.default.svc.cluster.local'
const OWN_TOKEN = 'own'
/** Two steps further apart than this have real I/O between them. */
const GAP_MAX = 12

/** Where something can be inserted: this many microtasks after a step. */
export type Position = { readonly step: number; readonly offset: number }

/** Counts the steps of one admission, and fires once at a position. */
export class Probe {
  readonly steps: string[] = []
  /** The microtasks between a step and the next one; `GAP_MAX` where there is I/O. */
  readonly gaps: number[] = []
  #fire: (() => void) | undefined
  #at: Position | undefined

  /** Counts from here on as from the start of an admission; without a position nothing fires. */
  arm(at?: Position, fire?: () => void): void {
    this.steps.length = 0
    this.gaps.length = 0
    this.#at = at
    this.#fire = fire
  }

  get hasFired(): boolean {
    return this.#fire === undefined
  }

  /** Every call of a member is a step, and so is the end of each that returns a promise. */
  watch<T extends object>(name: string, target: T): T {
    return new Proxy(target, {
      get: (_, key) => {
        const member: unknown = Reflect.get(target, key, target)
        if (typeof member !== 'function') return member
        return (...args: readonly unknown[]): unknown => {
          this.step(`${name}.${String(key)}`)
          const result: unknown = Reflect.apply(member, target, args)
          if (result instanceof Promise) {
            const settled = () => this.step(`${name}.${String(key)} settled`)
            result.then(settled, settled)
          }
          return result
        }
      },
    })
  }

  /** Something happened. */
  step(name: string): void {
    const index = this.steps.push(name) - 1
    this.gaps.push(0)
    const measure = () => {
      if (this.steps.length > index + 1) return
      this.gaps[index] = (this.gaps[index] ?? 0) + 1
      if ((this.gaps[index] ?? 0) < GAP_MAX) queueMicrotask(measure)
    }
    queueMicrotask(measure)
    if (this.#at?.step === index) this.#count(this.#at.offset)
  }

  #count(left: number): void {
    queueMicrotask(() => {
      if (left > 1) return this.#count(left - 1)
      const fire = this.#fire
      this.#fire = undefined
      fire?.()
    })
  }
}

/** Every position there is between the first step and the last, by the gaps of a whole admission. */
export const positionsOf = ({ gaps }: Probe): readonly Position[] =>
  gaps.flatMap((gap, step) =>
    Array.from({ length: Math.max(1, gap) }, (_, nth) => ({ step, offset: nth + 1 })),
  )

export type AdmissionStepper = Awaited<ReturnType<typeof startAdmissionStepper>>

/** The parts of a dialect that a test makes. */
export type DialectParts = {
  readonly dial: GatewayDialer
  readonly clock: FakeClock
  readonly probe: Probe
}

const inStream = ({ dial, probe }: DialectParts): Dialect =>
  createStreamDialect({
    inBandCredentials: true,
    dial,
    handshakes: probe.watch('handshakes', new Semaphore(1)),
  })

/** Thousands of steppers want one of a few configurations, which never change. */
const loaded = new Map<string, Config>()

const loadOnce = (gatewayUrl: string, entry: string, set: readonly string[]): Config => {
  const flags = [
    'listen.workers=127.0.0.1:0',
    `gateway.url=${gatewayUrl}`,
    'gateway.protocol=stream',
    // Empty caches of full size would cost more than all the rest.
    'review.cacheEntries=100',
    'limits.failuresPerAddress=0',
    `k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: ${entry}}]`,
    ...set,
  ]
  const key = flags.join('\n')
  const config = loaded.get(key) ?? loadConfig({ env: {}, flags, readFile: () => '' }).config
  loaded.set(key, config)
  return config
}

export const startAdmissionStepper = async (
  keys: KeyRing,
  gatewayUrl: string,
  createDialect: (parts: DialectParts) => Dialect = inStream,
) => {
  const clock = new FakeClock()
  clock.advance(1)
  const probe = new Probe()
  const store = new KubeStore()
  const workloads = createWorkloads(store, clock.now)
  const outcomes: string[] = []
  const load = (entry: string, set: readonly string[] = []) => loadOnce(gatewayUrl, entry, set)
  const live = new LiveConfig(load('openclaw-worker'))
  const runtime: Runtime = {
    clock,
    network: systemNetwork,
    random: () => 0,
    env: {},
    readFile: () => '',
    log: createLog('silent', { write: () => {} }),
    writeAudit: () => {},
    version: { version: 'test' },
  }
  const observed = composeObserve(live, runtime, {
    sources: () => ({}) as MetricSources,
    addressesOf: () => [],
  })
  const cluster = inProcessCluster(store, keys, clock, probe) as unknown as Cluster
  const line = composeLine({ live, runtime, cluster, metrics: observed.metrics })
  const { registry } = line
  const dial = createGatewayDialer({
    url: new URL(gatewayUrl),
    connectTimeoutMs: 5000,
    workerProto: 'http',
    watchPeer: () => {},
    signer: probe.watch('signer', await createAssertionSigner('openclaw-gateway', clock)),
    // A dial cancels its deadline in the same turn in which the gateway has answered.
    clock: {
      now: clock.now,
      monotonic: clock.monotonic,
      after: (ms, run) => {
        const cancel = clock.after(ms, run)
        return () => {
          probe.step('the gateway answered')
          cancel()
        }
      },
    },
  })
  const dialect = createDialect({ dial, clock, probe })
  const recorder: Recorder = {
    refused: ({ code }) => void outcomes.push(`refused ${code}`),
    admitted: () => void outcomes.push('admitted'),
    closed: ({ code }) => void outcomes.push(`closed ${code}`),
    revoked: () => {},
  }
  const workerPort = composeWorkerPort(live, runtime, {
    precheck: probe.watch('precheck', line.precheck),
    authenticator: probe.watch('authenticator', line.authenticator),
    binding: probe.watch('binding', line.binding),
    registry: probe.watch('registry', registry),
    recorder: probe.watch('recorder', recorder),
    dialect: (worker) => probe.watch('handshake', dialect(worker)),
    watchPeer: () => {},
    watch: { hasAddress: () => false, listAt: () => [] },
    tls: undefined,
    tlsFailures: { failed: () => {} },
  })
  let pods = 0
  /** A new pod each time, since a deleted pod does not come back. */
  const createPod = () => {
    pods += 1
    const pod = workloads.createPod({
      namespace: 'openclaw',
      name: `worker-${pods}`,
      serviceAccount: 'openclaw-worker',
      ips: ['127.0.0.11'],
      nodeName: 'node-1',
    })
    const issuing = { issuer: ISSUER, keys, store, nowMs: clock.now, nodeUid: () => 'node-uid' }
    return { pod, token: mintToken(issuing, { pod }) }
  }
  await line.jwks.load()
  live.announce()
  line.revocation.start()
  const address = await workerPort.listen('127.0.0.1', 0)
  return {
    url: `ws://${address}`,
    clock,
    probe,
    registry,
    outcomes,
    createPod,
    workloads,
    /** As the last event of a watch about a pod that was deleted by force. */
    removePod: (pod: Pod) => store.remove('pods', pod),
    /** Who is allowed in from now on: a ServiceAccount, with the rest of its entry and of `k8sTrust`. */
    allow(entry: string, set: readonly string[] = []) {
      live.apply(load(entry, set))
    },
    drain() {
      workerPort.startDraining()
      void registry.drain(0, 5000)
      clock.advance(0)
    },
    async stop() {
      line.revocation.stop()
      line.watch.stop()
      await workerPort.close()
    },
  }
}

/** After this many turns only time can bring the end. */
const PATIENCE_TURNS = 3000
const WAIT_MS = 2000

/** A worker that waits for a pod in vain gets the time to; `waitUntil` gives up if something is left in the end. */
export const untilClosed = async (
  stepper: AdmissionStepper,
  closed: Promise<void>,
): Promise<void> => {
  let isClosed = false
  void closed.then(() => (isClosed = true))
  let turns = 0
  await waitUntil(() => {
    turns += 1
    if (turns % PATIENCE_TURNS === 0) stepper.clock.advance(WAIT_MS)
    return isClosed
  })
}

/** What the real clients would bring from an API server, one microtask later. */
const inProcessCluster = (store: KubeStore, keys: KeyRing, clock: FakeClock, probe: Probe) => {
  const backend: Backend = {
    issuer: ISSUER,
    audiences: [ISSUER],
    keys,
    store,
    nowMs: clock.now,
    jwksUri: `${ISSUER}/openid/v1/jwks`,
    gitVersion: 'v1.35.4',
    successCacheMs: 10_000,
    reviewCache: new Map(),
    sidecarUser: 'system:serviceaccount:openclaw:openclaw-gateway',
    sidecarTokens: new Set([OWN_TOKEN]),
    revokedTokens: new Set(),
    rbac: { tokenReviews: true, pods: true, serviceAccounts: true },
  }
  const call = (method: string, path: string, body: string) => {
    const url = new URL(path, 'https://localhost')
    const headers = { authorization: `Bearer ${OWN_TOKEN}` }
    const request = { method, headers } as IncomingMessage
    return answerCall(backend, { request, url, target: targetOf(url), body })
  }
  const request = async ({ method, path, body }: KubeRequest) => {
    const answer = call(method, path, body === undefined ? '' : JSON.stringify(body))
    if (!('status' in answer)) throw new Error('a watch is not a request')
    return { status: answer.status, body: JSON.parse(answer.body) as unknown }
  }
  const open = ({ path, signal, onOpen }: OpenWatch) => {
    const selection = call('GET', path, '')
    if ('status' in selection) throw new Error(selection.body)
    const watch = new FakeWatch(path, signal)
    const relay = ({ resource, type, object }: KubeEvent) => {
      if (resource !== selection.resource || !selection.matches(object)) return
      watch.push({ type, object })
    }
    const from = Number(new URL(path, 'https://localhost').searchParams.get('resourceVersion'))
    for (const missed of store.since(from) ?? []) relay(missed)
    const unsubscribe = store.subscribe(relay)
    signal.addEventListener('abort', unsubscribe)
    onOpen()
    return watch.read()
  }
  return {
    reviews: probe.watch('reviews', { request }),
    keys: { request },
    lists: { request },
    pods: probe.watch('pods', { request }),
    watches: { open },
  }
}
