/** Puts the worker port together: the way to the gateway, the dialect, and the port in front. */

import { randomBytes } from 'node:crypto'
import { createStreamDialect } from '../dialect/stream.ts'
import { createAddressProof } from '../authz/address-proof.ts'
import type { Config } from '../config/schema.ts'
import type { Dialect } from '../dialect/dialect.ts'
import { createAcceptErrorLog } from '../edge/accept-errors.ts'
import type { Stages } from '../edge/admit.ts'
import { Attempts } from '../edge/attempts.ts'
import type { HostingOptions } from '../edge/hosting-port.ts'
import type { TlsMaterial } from '../edge/tls.ts'
import { WorkerPort } from '../edge/worker-port.ts'
import { WorkerWay } from '../edge/worker-way.ts'
import { isLoopback } from '../lib/address.ts'
import { findFilesObjection, readOpenFilesMax } from '../lib/open-files.ts'
import { groupStrangers } from '../lib/address-group.ts'
import type { PeerErrors } from '../lib/peer-errors.ts'
import { Semaphore } from '../lib/semaphore.ts'
import { TokenBuckets, type BucketLimit } from '../lib/token-buckets.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { TlsFailures } from '../observe/tls-failures.ts'
import type { Recorder } from '../observe/recorder.ts'
import type { AssertionSigner } from '../tunnel/assertion.ts'
import { createGatewayDialer } from '../tunnel/gateway-dialer.ts'
import { HostedGateway } from '../tunnel/hosted-gateway.ts'
import { checkUpgrade } from '../tunnel/upgrade-check.ts'
import type { Line } from './line.ts'
import type { LiveConfig } from './live-config.ts'
import { composeOpenClaw, type OpenClaw } from './openclaw.ts'
import type { Runtime } from './runtime.ts'

/**
 * Handshakes under way at the gateway. It is one process, which more at once only slow down, until a
 * herd runs out of time as a whole and none of it gets in; a node's handshake is all computation.
 */
const GATEWAY_HANDSHAKES_MAX = { stream: 64, openclaw: 8 }
const FAILURE_BURST_FACTOR = 5
/** A pod may have this many times fewer short streams than failures. */
const SHORT_STREAM_DIVISOR = 10

type DialectParts = {
  readonly signer: AssertionSigner
  readonly watch: Line['watch']
  /** Told of each socket to the gateway before it connects. */
  readonly watchPeer: PeerErrors['watch']
  readonly way: WorkerWay
  readonly metrics: Metrics
}

/** How long the gateway may take for an upgrade that is only asked for, in milliseconds. */
const CHECK_TIMEOUT_MS = 1000

export function composeWorkerWay(
  live: LiveConfig,
  { clock, log, network }: Runtime,
  { metrics, watchPeer }: Pick<DialectParts, 'metrics' | 'watchPeer'>,
): WorkerWay {
  const { url, protocol, connectTimeout } = live.config.gateway
  const timeoutMs = Math.min(connectTimeout, CHECK_TIMEOUT_MS)
  return new WorkerWay({
    isAskedFirst: protocol === 'openclaw',
    clock,
    async ask() {
      const to = { url: new URL(url), timeoutMs, clock, connect: network.connect, watchPeer }
      const { socket } = await checkUpgrade(to)
      socket.destroy()
    },
    onChanged(err) {
      if (err === undefined) return log.info('the gateway accepts the connections of workers again')
      metrics.gatewayRefusals.inc({ reason: err.refusal })
      log.warn({ err }, 'the gateway refuses the connections of workers')
    },
  })
}

export type ComposedDialect = {
  readonly dialect: Dialect
  /** What goes with the `openclaw` protocol alone. */
  readonly openclaw: OpenClaw | undefined
}

export function composeDialect(
  live: LiveConfig,
  runtime: Runtime,
  { signer, watch, watchPeer, way, metrics }: DialectParts,
): ComposedDialect {
  const { gateway, k8sTrust, listen } = live.config
  const handshakes = new Semaphore(GATEWAY_HANDSHAKES_MAX[gateway.protocol])
  const dial = createGatewayDialer({
    url: new URL(gateway.url),
    connectTimeoutMs: gateway.connectTimeout,
    workerProto: protoOf(listen),
    signer,
    clock: runtime.clock,
    connect: runtime.network.connect,
    watchPeer,
    onDialed: (fault) => way.dialed(fault),
  })
  if (gateway.protocol === 'openclaw') {
    const openclaw = composeOpenClaw({ live, runtime, dial, handshakes, watch, way, metrics })
    return { dialect: openclaw.dialect, openclaw }
  }
  const { inBandCredentials } = k8sTrust
  return {
    dialect: createStreamDialect({ inBandCredentials, dial, handshakes }),
    openclaw: undefined,
  }
}

type Parts = Pick<Line, 'precheck' | 'authenticator' | 'binding' | 'registry'> & {
  readonly recorder: Recorder
  readonly dialect: Dialect
  readonly watchPeer: PeerErrors['watch']
  readonly watch: Pick<Line['watch'], 'hasAddress' | 'listAt'>
  readonly tls: TlsMaterial | undefined
  readonly tlsFailures: Pick<TlsFailures, 'failed'>
}

const protoOf = ({ tls }: Config['listen']) => (tls === undefined ? 'http' : 'https')

/** What session hosting needs; only OpenClaw's protocol knows it. */
function composeHosting(
  live: LiveConfig,
  runtime: Runtime,
  parts: Parts & { readonly stages: Stages },
): HostingOptions | undefined {
  const { gateway, listen } = live.config
  if (gateway.protocol !== 'openclaw') return undefined
  const { registry, stages, watch, watchPeer } = parts
  return {
    isEnabled: gateway.sessionHosting,
    stages: {
      ...stages,
      registry,
      proveAddress: createAddressProof({ pods: watch, rules: () => live.config.k8sTrust }),
      isLocalAddress: runtime.isLocalAddress ?? isLoopback,
    },
    gateway: new HostedGateway({
      url: new URL(gateway.url),
      connectTimeoutMs: gateway.connectTimeout,
      workerProto: protoOf(listen),
      clock: runtime.clock,
      connect: runtime.network.connect,
      handshakes: new Semaphore(GATEWAY_HANDSHAKES_MAX.stream),
      watchPeer,
    }),
  }
}

export function composeWorkerPort(live: LiveConfig, runtime: Runtime, parts: Parts): WorkerPort {
  const { clock, log, random, readFile } = runtime
  const { limits } = live.config
  const { precheck, authenticator, binding, registry, recorder, dialect, watch, watchPeer, tls } =
    parts
  const objection = findFilesObjection(readOpenFilesMax(readFile), limits.streams)
  if (objection !== undefined) log.warn(objection)
  const groupOf = groupStrangers((address) => watch.hasAddress(address))
  const buckets = (limit: BucketLimit) => new TokenBuckets({ ...limit, clock })
  const rate = limits.failuresPerAddress
  const failures = { ratePerSecond: rate, burst: rate * FAILURE_BURST_FACTOR }
  const stages = { precheck, registry, authenticator, binding, policy: () => live.policy }
  return new WorkerPort({
    stages,
    dialect,
    hosting: composeHosting(live, runtime, { ...parts, stages }),
    recorder,
    clock,
    random,
    attempts: new Attempts({
      perAddress: buckets(failures),
      perPod: buckets(failures),
      shortStreams: buckets({ ...failures, ratePerSecond: rate / SHORT_STREAM_DIVISOR }),
      binding,
      recorder,
      clock,
      groupOf,
    }),
    groupOf,
    tls,
    onTlsFailure: parts.tlsFailures.failed,
    watchPeer,
    onAcceptError: createAcceptErrorLog('workers', runtime),
    isTrustEnabled: () => live.config.k8sTrust.enabled,
    publicHost: live.config.listen.publicHost,
    credentialHeader: () => live.config.k8sTrust.credentialHeader,
    streamIdPrefix: randomBytes(4).toString('hex'),
    limits: { ...limits, handshakeTimeoutMs: limits.handshakeTimeout },
  })
}
