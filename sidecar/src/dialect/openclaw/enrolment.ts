/** Enrolment: brings a pod's device into the gateway, as a known one or with a bootstrap token. */

import type { Socket } from 'node:net'
import type { Clock } from '../../lib/clock.ts'
import { DeadlineError, pause, withDeadline } from '../../lib/deadline.ts'
import { Fault } from '../../fault.ts'
import type { Semaphore } from '../../lib/semaphore.ts'
import type { Caller, GatewayDialer } from '../../tunnel/gateway-dialer.ts'
import type { GrantedDialContext } from '../dialect.ts'
import type { Device } from './device-key.ts'
import type { Devices } from './devices.ts'
import type { EphemeralSessions } from './ephemeral-sessions.ts'
import type { ConnectRequest } from './frames.ts'
import {
  filterSurface,
  gatewayConnectFrame,
  type GatewayAuth,
  type Surface,
} from './gateway-connect.ts'
import { ConnectRefused, greetGateway, type Welcome } from './gateway-handshake.ts'
import type { Surfaces } from './surfaces.ts'

export type EnrolmentOptions = {
  readonly dial: GatewayDialer
  /** Bounds the handshakes with the gateway at once. */
  readonly handshakes: Pick<Semaphore, 'acquire'>
  readonly devices: Pick<
    Devices,
    'isEnrolled' | 'list' | 'markEnrolled' | 'remove' | 'mintBootstrapToken'
  >
  readonly ephemeral: Pick<EphemeralSessions, 'keep'>
  readonly surfaces: Pick<Surfaces, 'check'>
  /** The credential for a device the gateway knows. Throws a `Fault` when it cannot be read. */
  readonly readAuth: () => GatewayAuth
  /** For the whole handshake with the gateway, in milliseconds. */
  readonly handshakeTimeoutMs: number
  readonly messageBytesMax: number
  readonly clock: Clock
  readonly onEnrolled: (deviceId: string, podName: string) => void
}

/** One worker that is entering. */
export type Entrant = {
  readonly caller: Caller
  /** The worker's own `connect`. */
  readonly request: ConnectRequest
  readonly context: GrantedDialContext
  readonly device: Device
  /** Called with what the gateway is about to be offered. */
  readonly onOffer: (surface: Surface) => void
}

/** The gateway does not know the device, or knows it as another kind of machine. */
const PAIRING_REQUIRED = 'PAIRING_REQUIRED'
/** The record changed while the gateway looked at it, as a concurrent approval does: try again. */
const PAIRING_CHANGED = 'NOT_PAIRED'
/** With many workers at once the record may change several times. */
const CHANGED_RETRIES_MAX = 4
const CHANGED_PAUSE_MS = 50

export class Enrolment {
  readonly #options: EnrolmentOptions

  constructor(options: EnrolmentOptions) {
    this.#options = options
  }

  /**
   * Waits for a turn. The wait counts against the worker's handshake timeout, not the gateway's.
   * Throws a `Fault`, or the signal's reason; nothing then stays open at the gateway.
   */
  async enter(entrant: Entrant): Promise<Welcome> {
    const release = await this.#options.handshakes.acquire(entrant.context.signal)
    return this.#enterInTurn(entrant).finally(release)
  }

  async #enterInTurn(entrant: Entrant): Promise<Welcome> {
    for (let again = 1; ; again += 1) {
      try {
        return await this.#enterOnce(entrant)
      } catch (error) {
        const isChanged = error instanceof ConnectRefused && error.reason === PAIRING_CHANGED
        if (!isChanged || again > CHANGED_RETRIES_MAX) throw error
        await pause(this.#options.clock, CHANGED_PAUSE_MS * again, entrant.context.signal)
      }
    }
  }

  async #enterOnce(entrant: Entrant): Promise<Welcome> {
    const { devices, ephemeral, readAuth, surfaces } = this.#options
    const { device } = entrant
    await ephemeral.keep(device.id)
    if (!(await devices.isEnrolled(device.id))) return this.#enrol(entrant)
    try {
      const welcome = await this.#greet(entrant, readAuth())
      surfaces.check()
      return welcome
    } catch (error) {
      if (!(error instanceof ConnectRefused) || error.reason !== PAIRING_REQUIRED) throw error
      return this.#enrolAnew(entrant)
    }
  }

  /** Its record is gone, or older than its image: the device is ours, so it is enrolled again. */
  async #enrolAnew(entrant: Entrant): Promise<Welcome> {
    const { devices } = this.#options
    const records = await devices.list()
    if (records.some(({ deviceId }) => deviceId === entrant.device.id)) {
      await devices.remove(entrant.device.id)
    }
    return this.#enrol(entrant)
  }

  async #enrol(entrant: Entrant): Promise<Welcome> {
    const { devices, onEnrolled } = this.#options
    const { device, context } = entrant
    const bootstrapToken = await devices.mintBootstrapToken()
    const welcome = await this.#greet(entrant, { bootstrapToken })
    devices.markEnrolled(device.id)
    onEnrolled(device.id, context.identity.podName)
    return welcome
  }

  async #greet(entrant: Entrant, auth: GatewayAuth): Promise<Welcome> {
    const { clock, dial, handshakeTimeoutMs, messageBytesMax } = this.#options
    const { caller, device, onOffer, context, request } = entrant
    const { identity, signal } = context
    signal.throwIfAborted()
    const dialed = await dial(caller, context)
    try {
      const greeting = greetGateway({
        dialed,
        requestId: request.id,
        messageBytesMax,
        connectFrame(challenge) {
          const allowedCommands = context.allowedCommands()
          onOffer(filterSurface(request.params, allowedCommands))
          return gatewayConnectFrame({
            request,
            identity,
            allowedCommands,
            device,
            challenge,
            auth,
          })
        },
      })
      return await withDeadline(clock, handshakeTimeoutMs, () => greeting, signal)
    } catch (error) {
      // Only a closed socket is out of the way of the next session.
      await destroySocket(dialed.socket)
      signal.throwIfAborted()
      if (!(error instanceof DeadlineError)) throw error
      throw new Fault('gateway_unreachable', 'the gateway did not answer in time', { cause: error })
    }
  }
}

async function destroySocket(socket: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  socket.once('close', () => resolve(undefined))
  socket.destroy()
  if (!socket.closed) await promise
}
