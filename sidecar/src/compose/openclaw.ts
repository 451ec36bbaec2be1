/** Puts the `openclaw` dialect together: device keys, operator channel, enrolment, ephemeral sessions. */

import { randomUUID } from 'node:crypto'
import type { Dialect } from '../dialect/dialect.ts'
import { createDeviceKeys, type DeviceKeys, type PodName } from '../dialect/openclaw/device-key.ts'
import { Devices } from '../dialect/openclaw/devices.ts'
import { Enrolment } from '../dialect/openclaw/enrolment.ts'
import { EphemeralSessions } from '../dialect/openclaw/ephemeral-sessions.ts'
import { FirstSurfaces } from '../dialect/openclaw/first-surfaces.ts'
import type { GatewayAuth } from '../dialect/openclaw/gateway-connect.ts'
import { GatewayTraits } from '../dialect/openclaw/gateway-traits.ts'
import { GatewaySecret } from '../dialect/openclaw/gateway-secret.ts'
import { KnownPods } from '../dialect/openclaw/known-pods.ts'
import { createOpenClawDialect } from '../dialect/openclaw/openclaw.ts'
import { OperatorChannel } from '../dialect/openclaw/operator-channel.ts'
import { PairingRequests } from '../dialect/openclaw/pairing-requests.ts'
import { SessionHosts, type SessionHostsOptions } from '../dialect/openclaw/session-hosts.ts'
import { Sessions } from '../dialect/openclaw/sessions.ts'
import { Surfaces } from '../dialect/openclaw/surfaces.ts'
import type { WorkerWay } from '../edge/worker-way.ts'
import type { Semaphore } from '../lib/semaphore.ts'
import type { PodWatch } from '../kube/pod-watch.ts'
import { isLoopback } from '../lib/address.ts'
import { FaultLog } from '../observe/fault-log.ts'
import type { SessionHosting } from '../observe/metric-sources.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { GatewayDialer } from '../tunnel/gateway-dialer.ts'
import type { LiveConfig } from './live-config.ts'
import type { Runtime } from './runtime.ts'

/** The most pods that one log line names. */
const NAMED_MAX = 10

/** The only role of a worker of this protocol. */
const NODE = 'node'

export type OpenClawParts = {
  readonly live: LiveConfig
  readonly runtime: Runtime
  readonly dial: GatewayDialer
  /** Handshakes under way at the gateway. */
  readonly handshakes: Semaphore
  readonly watch: PodWatch
  readonly way: WorkerWay
  readonly metrics: Metrics
}

export type OpenClaw = {
  readonly dialect: Dialect
  readonly start: () => void
  readonly stop: () => void
  /** Why workers cannot be admitted although the gateway runs; `undefined` if they can. */
  readonly findObjection: () => string | undefined
  /** What the nodes offer for hosted sessions; `undefined` while the gateway does not tell. */
  readonly summarizeHosting: () => SessionHosting | undefined
}

export function composeOpenClaw(parts: OpenClawParts): OpenClaw {
  const { live, runtime, dial, handshakes, watch } = parts
  const { gateway, k8sTrust, limits } = live.config
  const { clock, log, readFile } = runtime
  const secret = new GatewaySecret({ ...gateway.auth, readFile })
  const deviceKeys = createDeviceKeys(readFile(gateway.deviceSeedFile))
  const operator = composeOperator(parts, deviceKeys, () => secret.asOperator())
  const { channel, devices, ephemeral, hosts, requests, sessions, surfaces, traits } = operator
  watch.subscribe(ephemeral)
  live.subscribe(hosts)
  const enrolment = new Enrolment({
    dial,
    handshakes,
    devices,
    requests,
    ephemeral,
    surfaces,
    firstSurfaces: new FirstSurfaces(clock),
    traits,
    readAuth: () => secret.asWorker(),
    handshakeTimeoutMs: gateway.connectTimeout,
    messageBytesMax: limits.messageBytes,
    clock,
    onEnrolled: (deviceId, podName) => log.info({ deviceId, podName }, 'a device was enrolled'),
  })
  return {
    dialect: createOpenClawDialect({
      inBandCredentials: k8sTrust.inBandCredentials,
      isLocalAddress: runtime.isLocalAddress ?? isLoopback,
      deviceKeys,
      sessions,
      enrolment,
      traits,
      clock,
      randomId: randomUUID,
    }),
    start: () => channel.start(),
    stop() {
      operator.faults.stop()
      hosts.stop()
      surfaces.stop()
      ephemeral.stop()
      channel.stop()
    },
    findObjection: () => channel.findObjection(),
    summarizeHosting: () => hosts.summarize(),
  }
}

const nameOf = ({ namespace, podName }: PodName): string => `${namespace}/${podName}`

/** What goes over the operator channel, and what has to be done when it comes up. */
function composeOperator(
  { live, runtime, watch, way, metrics }: OpenClawParts,
  deviceKeys: DeviceKeys,
  readAuth: () => GatewayAuth,
) {
  const { gateway, k8sTrust, limits } = live.config
  const { clock, log, network, random, version } = runtime
  const sessions = new Sessions()
  const traits = new GatewayTraits()
  let downAt: number | undefined
  const channel = new OperatorChannel({
    url: new URL(gateway.url),
    readAuth,
    network,
    version: version.version,
    clock,
    random,
    messageBytesMax: limits.messageBytes,
    onReady(capabilities) {
      const downMs = downAt === undefined ? undefined : Math.round(clock.monotonic() - downAt)
      downAt = undefined
      log.info({ downMs }, 'the operator channel is up')
      way.doubt()
      traits.reset(capabilities)
      // Whatever changed at the gateway meanwhile went unseen.
      devices.forget()
      void ephemeral.reconcile()
      surfaces.check()
      hosts.connected()
    },
    onDown(err) {
      downAt ??= clock.monotonic()
      log.warn({ err }, 'the operator channel is down')
      hosts.disconnected()
    },
    onRefused: (reason) => metrics.gatewayRefusals.inc({ reason }),
    onEvent({ event }) {
      if (event === 'node.pair.requested') surfaces.check()
      if (event === 'node.runnerInventory.changed') hosts.check()
    },
  })
  const devices = new Devices(channel, traits)
  const requests = new PairingRequests(channel, traits)
  const faults = new FaultLog({ clock, log, message: 'a call on the operator channel failed' })
  const onFault = (err: unknown) => faults.failed('call', err)
  const ephemeral = new EphemeralSessions({
    devices,
    requests,
    sessions,
    deviceKeys,
    pods: new KnownPods({
      watch,
      allowedIdentities: () => live.config.k8sTrust.allowedIdentities,
    }),
    isEnabled: () => k8sTrust.ephemeralSessions,
    clock,
    onRemoved: (deviceId, podName) => log.info({ deviceId, podName }, 'a device was removed'),
    onFault,
  })
  const surfaces = new Surfaces({
    channel,
    sessions,
    clock,
    onWithheld: (deviceId) => log.warn({ deviceId }, 'a node offers commands that are not allowed'),
    onDropped: (deviceId) =>
      log.warn({ deviceId }, 'the gateway dropped a session when its surface was approved: ended'),
    onFault,
  })
  const hosts = composeHosts({ live, runtime }, { channel, sessions, onFault })
  return { channel, devices, ephemeral, faults, hosts, requests, sessions, surfaces, traits }
}

/** Which workers offer to host sessions, and which of them may. */
function composeHosts(
  { live, runtime }: Pick<OpenClawParts, 'live' | 'runtime'>,
  parts: Pick<SessionHostsOptions, 'channel' | 'sessions' | 'onFault'>,
): SessionHosts {
  const { clock, log, random } = runtime
  return new SessionHosts({
    ...parts,
    isHostingAllowed(pod) {
      const grant = live.policy.authorize(pod, NODE)
      return grant.ok && grant.value.isHostingAllowed
    },
    onForbidden: (pods) =>
      log.warn(
        { count: pods.length, pods: pods.slice(0, NAMED_MAX).map(nameOf) },
        'workers offer to host sessions, which the policy forbids: a session placed there fails',
      ),
    clock,
    random,
  })
}
