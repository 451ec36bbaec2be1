/** The gateway of a day: one that sends back what it gets, or one of OpenClaw with its pairing. */

import type { FakeClock } from '../kit/fake-clock.ts'
import { createPairedDevices } from '../kit/paired-devices.ts'
import { startGatewayStub, type GatewayStubOptions } from '@openclaw-k8s/gateway-stub'
import type { SimNetwork } from './network.ts'
import type { Oracle } from './oracle.ts'
import type { Speech } from './schedule.ts'

export const SECRET = 'the-secret-of-the-gateway-itself'
/** The gateway ticks, so that its operator knows that it is there. */
const TICK_MS = 30_000

export type SimGatewayOptions = {
  readonly speech: Speech
  readonly clock: FakeClock
  readonly network: SimNetwork
  readonly oracle: Oracle
}

type Pair = NonNullable<GatewayStubOptions['pair']>

export const isOpenClaw = (speech: Speech): boolean => speech.startsWith('openclaw')

export const startSimGateway = async ({ speech, clock, network, oracle }: SimGatewayOptions) => {
  const devices = createPairedDevices(SECRET, { isOlder: speech === 'openclaw-older' })
  let refusals = 0
  /** The port that each device's last session was dialed from. */
  const ports = new Map<string, number>()
  const pair: Pair = (connect, params, connection) => {
    if (connect.role !== 'node' || connect.device === undefined) return undefined
    const { headers, peerPort } = connection.handshake
    const { id } = connect.device
    const before = ports.get(id) ?? 0
    // A gateway that does not read, or is slow, comes to a `connect` when the sidecar has left it.
    const isGivenUp = !network.isDialOpen(peerPort)
    if (before !== peerPort && network.isDialOpen(before) && !isGivenUp) {
      oracle.fail(`a session of ${id.slice(0, 8)} begins while its previous one is open`)
    }
    if (!isGivenUp) ports.set(id, peerPort)
    // A gateway that does not read hears of it long after it arrived.
    if (connection.behavior.kind !== 'silent') oracle.connected(headers, params)
    if (refusals > 0) {
      refusals -= 1
      return { code: 'AUTH_UNAUTHORIZED', message: 'the gateway does not want anybody now' }
    }
    return devices.gateway.pair?.(connect, params, connection)
  }
  const remove = devices.gateway.methods?.['device.pair.remove']
  const methods: GatewayStubOptions['methods'] = {
    ...devices.gateway.methods,
    'device.pair.remove': (params, connection) => {
      const id = String(params['deviceId'])
      if (network.isDialOpen(ports.get(id) ?? 0)) {
        oracle.fail(`the record of ${id.slice(0, 8)} is removed while its session is open`)
      }
      return remove?.(params, connection)
    },
  }
  const gateway = await startGatewayStub({
    clock,
    onHandshake: (handshake) => oracle.reachedGateway(handshake),
    ...(isOpenClaw(speech) ? { ...devices.gateway, methods, pair } : {}),
  })
  let stopTicking = () => {}
  const tick = () => {
    gateway.tick()
    stopTicking = clock.after(TICK_MS, tick)
  }
  if (isOpenClaw(speech)) tick()
  return {
    ...gateway,
    /** The names of the devices it knows. */
    deviceNames: devices.names,
    /** Refuses the next nodes that connect. */
    refuseNodes: (count: number): void => void (refusals = count),
    /** Its records are lost, as with its volume. */
    forgetDevices(): void {
      devices.paired.clear()
      devices.surfaces.clear()
      devices.requests.clear()
      devices.pending.clear()
    },
    heal(): void {
      refusals = 0
      gateway.setBehavior('accept')
      // Nobody would ever notice one of these.
      for (const { behavior, terminate } of gateway.connections) {
        if (behavior.kind !== 'accept') terminate()
      }
    },
    stopTicking: (): void => stopTicking(),
  }
}
