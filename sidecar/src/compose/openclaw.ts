/** Puts the `openclaw` dialect together: device keys, operator channel, enrolment, ephemeral sessions. */

import { randomUUID } from 'node:crypto'
import type { Config } from '../config/schema.ts'
import type { Dialect } from '../dialect/dialect.ts'
import { createDeviceKeys, type DeviceKeys, type PodName } from '../dialect/openclaw/device-key.ts'
import { Devices } from '../dialect/openclaw/devices.ts'
import { Enrolment } from '../dialect/openclaw/enrolment.ts'
import { EphemeralSessions } from '../dialect/openclaw/ephemeral-sessions.ts'
import type { GatewayAuth } from '../dialect/openclaw/gateway-connect.ts'
import { createOpenClawDialect } from '../dialect/openclaw/openclaw.ts'
import { OperatorChannel } from '../dialect/openclaw/operator-channel.ts'
import { Sessions } from '../dialect/openclaw/sessions.ts'
import { Surfaces } from '../dialect/openclaw/surfaces.ts'
import { Fault } from '../fault.ts'
import type { Places } from '../places.ts'
import type { PodWatch } from '../kube/pod-watch.ts'
import { isLoopback } from '../tunnel/address.ts'
import type { GatewayDialer } from '../tunnel/gateway-dialer.ts'
import type { Settings } from './settings.ts'
import type { Surroundings } from './surroundings.ts'

export type OpenClawParts = {
  readonly settings: Settings
  readonly around: Surroundings
  readonly dial: GatewayDialer
  readonly places: Places
  readonly watch: Pick<PodWatch, 'isSynced' | 'staleForMs' | 'listPods' | 'listAccounts'>
}

export type OpenClaw = {
  readonly dialect: Dialect
  readonly start: () => void
  readonly stop: () => void
  /** Every session has to be allowed what it offers. */
  readonly onPolicyChanged: () => void
  /** The pod's object is gone, or its name belongs to another. */
  readonly podGone: (pod: PodName, podUid: string) => void
  /** Why workers cannot be admitted although the gateway runs; `undefined` if they can. */
  readonly findObjection: () => string | undefined
}

export function composeOpenClaw(parts: OpenClawParts): OpenClaw {
  const { settings, around, dial, places } = parts
  const { gateway, k8sTrust, limits } = settings.config
  const { clock, log, readFile } = around
  const secrets = readSecrets(settings.config, readFile)
  const deviceKeys = createDeviceKeys(readFile(gateway.deviceSeedFile))
  const operator = composeOperator(parts, deviceKeys, secrets.asOperator)
  const { channel, devices, ephemeral, sessions, surfaces } = operator
  const enrolment = new Enrolment({
    dial,
    places,
    devices,
    ephemeral,
    surfaces,
    readAuth: secrets.asWorker,
    handshakeTimeoutMs: gateway.connectTimeout,
    messageBytesMax: limits.messageBytes,
    clock,
    onEnrolled: (deviceId, podName) => log.info({ deviceId, podName }, 'a device was enrolled'),
  })
  return {
    dialect: createOpenClawDialect({
      inBandCredentials: k8sTrust.inBandCredentials,
      isLocalAddress: around.isLocalAddress ?? isLoopback,
      deviceKeys,
      sessions,
      enrolment,
      clock,
      randomId: randomUUID,
    }),
    start: () => channel.start(),
    stop() {
      surfaces.stop()
      ephemeral.stop()
      channel.stop()
    },
    onPolicyChanged: () => sessions.review(),
    podGone: (pod, podUid) => ephemeral.podGone(pod, podUid),
    findObjection: () => (channel.isReady ? undefined : 'the operator channel is down'),
  }
}

/** What goes over the operator channel, and what has to be done when it comes up. */
function composeOperator(
  { settings, around, watch }: OpenClawParts,
  deviceKeys: DeviceKeys,
  readAuth: () => GatewayAuth,
) {
  const { gateway, k8sTrust, limits } = settings.config
  const { clock, log, random, version } = around
  const sessions = new Sessions()
  const channel = new OperatorChannel({
    url: new URL(gateway.url),
    readAuth,
    version: version.version,
    clock,
    random,
    messageBytesMax: limits.messageBytes,
    onReady() {
      log.info('the operator channel is up')
      // Whatever changed at the gateway meanwhile went unseen.
      devices.forget()
      void ephemeral.reconcile()
      surfaces.check()
    },
    onDown: (err) => log.warn({ err }, 'the operator channel is down'),
    onEvent({ event }) {
      if (event === 'node.pair.requested') surfaces.check()
    },
  })
  const devices = new Devices(channel)
  const onFault = (err: unknown) => log.warn({ err }, 'a call on the operator channel failed')
  const ephemeral = new EphemeralSessions({
    devices,
    sessions,
    deviceKeys,
    livePods: () => listLivePods(watch),
    accounts: () => listAccounts(settings, watch),
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
    onFault,
  })
  return { channel, devices, ephemeral, sessions, surfaces }
}

/**
 * The gateway's secret, read again each time, since it can be rotated. Behind a trusted proxy
 * only its owner shows it: a worker's connection is vouched for by its headers.
 */
function readSecrets({ gateway }: Config, readFile: (path: string) => string) {
  const { mode, secretFile } = gateway.auth
  const read = (): string => {
    let secret: string
    try {
      secret = readFile(secretFile).trim()
    } catch (cause) {
      throw new Fault('operator_unavailable', "the gateway's secret cannot be read", { cause })
    }
    if (secret === '') throw new Fault('operator_unavailable', "the gateway's secret is empty")
    return secret
  }
  const show = (): GatewayAuth => (mode === 'token' ? { token: read() } : { password: read() })
  return {
    asOperator: show,
    asWorker: (): GatewayAuth => (mode === 'trusted-proxy' ? {} : show()),
  }
}

/** A pod that ended will not dial again, although its object may stay for days. */
const ENDED = new Set(['Succeeded', 'Failed'])

/** `undefined` unless the watch shows every pod there is. */
function listLivePods(watch: OpenClawParts['watch']): readonly PodName[] | undefined {
  if (!watch.isSynced || watch.staleForMs > 0) return undefined
  return [...watch.listPods()]
    .filter(({ phase }) => !ENDED.has(phase))
    .map(({ namespace, serviceAccount, name }) => ({ namespace, serviceAccount, podName: name }))
}

/** Those the cluster has, and those the allow-list names although they are gone. */
function listAccounts({ config }: Settings, watch: OpenClawParts['watch']) {
  const watched = [...watch.listAccounts()].map(({ namespace, name }) => ({
    namespace,
    serviceAccount: name,
  }))
  const listed = config.k8sTrust.allowedIdentities.filter(
    ({ namespace, serviceAccount }) => !/[*?]/.test(namespace + serviceAccount),
  )
  const byName = new Map(
    [...watched, ...listed].map(({ namespace, serviceAccount }) => [
      `${namespace}/${serviceAccount}`,
      { namespace, serviceAccount },
    ]),
  )
  return [...byName.values()]
}
