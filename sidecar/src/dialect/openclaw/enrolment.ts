/** Enrolment: brings a pod's device into the gateway, in the way that the gateway offers. */

import { LRUCache } from 'lru-cache'
import { boundedLru } from '../../lib/bounded-lru.ts'
import { pause, raceAbort } from '../../lib/deadline.ts'
import { Fault } from '../../fault.ts'
import { GatewayRefused } from '../../gateway-refusal.ts'
import type { Semaphore } from '../../lib/semaphore.ts'
import type { Devices } from './devices.ts'
import type { EphemeralSessions } from './ephemeral-sessions.ts'
import { filterSurface, type GatewayAuth } from './gateway-connect.ts'
import {
  destroySocket,
  endAdmission,
  enterGateway,
  type Entrant,
  type GatewayEntryOptions,
} from './gateway-entry.ts'
import { ConnectRefused, type Welcome } from './gateway-handshake.ts'
import { HandshakeClosed } from './gateway-messages.ts'
import type { FirstSurfaces } from './first-surfaces.ts'
import type { PairingRequests } from './pairing-requests.ts'
import type { Surfaces } from './surfaces.ts'

export type EnrolmentOptions = GatewayEntryOptions & {
  /** Bounds the handshakes with the gateway at once. */
  readonly handshakes: Pick<Semaphore, 'acquire'>
  readonly devices: Pick<
    Devices,
    'isEnrolled' | 'list' | 'markEnrolled' | 'remove' | 'mintBootstrapToken'
  >
  readonly requests: Pick<PairingRequests, 'find' | 'approve' | 'approveSurface' | 'confirm'>
  readonly ephemeral: Pick<EphemeralSessions, 'keep' | 'discard'>
  readonly surfaces: Pick<Surfaces, 'check'>
  readonly firstSurfaces: Pick<FirstSurfaces, 'take' | 'giveBack'>
  /** The credential for a device the gateway knows. Throws a `Fault` when it cannot be read. */
  readonly readAuth: () => GatewayAuth
  readonly onEnrolled: (deviceId: string, podName: string) => void
}

/** The gateway does not know the device, or knows it as another kind of machine. */
const PAIRING_REQUIRED = 'PAIRING_REQUIRED'
/** The record changed while the gateway looked at it, as a concurrent approval does: try again. */
const PAIRING_CHANGED = 'NOT_PAIRED'
/** With many workers at once the record may change several times. */
const CHANGED_RETRIES_MAX = 4
const CHANGED_PAUSE_MS = 50
const REFUSED_APPROVED = 'the gateway refused the connect after the approval'
/** Far more than can be between the two at once. */
const UNCONFIRMED_MAX = 10_000

/** The gateway's way to a new node: a bootstrap token, or else a request that is approved. */
export class Enrolment {
  readonly #options: EnrolmentOptions
  /** Devices that were approved, and whose record was not looked at yet. */
  readonly #unconfirmed = new LRUCache<string, true>(boundedLru(UNCONFIRMED_MAX))

  constructor(options: EnrolmentOptions) {
    this.#options = options
  }

  /**
   * Waits for a turn. The wait counts against the worker's handshake timeout, not the gateway's.
   * Throws a `Fault`, or the signal's reason; nothing then stays open at the gateway.
   */
  async enter(entrant: Entrant): Promise<Welcome> {
    const release = await this.#options.handshakes.acquire(entrant.context.signal)
    return this.#whileChanging(entrant, () => this.#enterOnce(entrant)).finally(release)
  }

  async #whileChanging(entrant: Entrant, attempt: () => Promise<Welcome>): Promise<Welcome> {
    for (let again = 1; ; again += 1) {
      try {
        return await attempt()
      } catch (error) {
        if (!isOfAChange(error) || again > CHANGED_RETRIES_MAX) throw error
        await pause(this.#options.clock, CHANGED_PAUSE_MS * again, entrant.context.signal)
      }
    }
  }

  async #enterOnce(entrant: Entrant): Promise<Welcome> {
    const { devices, ephemeral, readAuth, surfaces } = this.#options
    const { device, context } = entrant
    await ephemeral.keep(device.id)
    const isKnown = await devices.isEnrolled(device.id)
    const bootstrapToken = isKnown ? undefined : await this.#mintBootstrapToken(entrant)
    if (bootstrapToken !== undefined) return this.#enrol(entrant, bootstrapToken)
    try {
      const welcome = await this.#greet(entrant, readAuth())
      if (this.#unconfirmed.has(device.id)) await this.#confirm(entrant, welcome)
      surfaces.check()
      return welcome
    } catch (error) {
      if (isRefusedAs(error, PAIRING_REQUIRED)) return this.#enrolAnew(entrant)
      // The gateway may have made a request for pairing of the `connect` whose answer is lost.
      if (!isKnown && context.signal.aborted) ephemeral.discard(device.id, context.identity)
      throw error
    }
  }

  /** Its record is gone, or older than its image, or there was none. The device is ours. */
  async #enrolAnew(entrant: Entrant): Promise<Welcome> {
    const { devices } = this.#options
    const bootstrapToken = await this.#mintBootstrapToken(entrant)
    if (bootstrapToken === undefined) return this.#enrolByApproval(entrant)
    const records = await devices.list()
    if (records.some(({ deviceId }) => deviceId === entrant.device.id)) {
      await devices.remove(entrant.device.id)
    }
    return this.#enrol(entrant, bootstrapToken)
  }

  async #mintBootstrapToken(entrant: Entrant): Promise<string | undefined> {
    const { devices, firstSurfaces, traits } = this.#options
    if (!traits.hasBootstrap) return undefined
    this.#takeFirstSurface(entrant)
    let token: string | undefined
    try {
      token = await devices.mintBootstrapToken()
      return token
    } finally {
      if (token === undefined) firstSurfaces.giveBack(entrant.caller.address)
    }
  }

  #takeFirstSurface({ caller }: Entrant): void {
    if (this.#options.firstSurfaces.take(caller.address)) return
    const message = `the gateway would lock ${caller.address} out: too many new nodes of one address`
    throw new Fault('too_many_enrolments', message)
  }

  async #enrol(entrant: Entrant, bootstrapToken: string): Promise<Welcome> {
    const welcome = await this.#greet(entrant, { bootstrapToken })
    this.#markEnrolled(entrant)
    return welcome
  }

  /**
   * The gateway holds a request for pairing, which it made of our refused `connect`. If anything
   * fails from here on, neither the request nor a record stays.
   */
  async #enrolByApproval(entrant: Entrant): Promise<Welcome> {
    const { ephemeral } = this.#options
    const { device, context } = entrant
    try {
      await this.#approve(entrant)
      return await this.#enterApproved(entrant)
    } catch (error) {
      ephemeral.discard(device.id, context.identity)
      throw error
    }
  }

  async #approve(entrant: Entrant): Promise<void> {
    const { requests } = this.#options
    const { caller, context, device, request } = entrant
    const { address } = caller
    const requestId = await raceAbort(requests.find({ device, address }), context.signal)
    // The last thing before the approval: the worker must be allowed in at this very moment.
    const objection = context.findObjection()
    if (objection !== undefined) endAdmission(context, objection)
    context.signal.throwIfAborted()
    // Awaited even if the admission ends: what comes later must find it done.
    this.#unconfirmed.set(device.id, true)
    await requests.approve(requestId)
    context.signal.throwIfAborted()
    const { client } = request.params
    const surface = filterSurface(request.params, context.allowedCommands())
    const { podName: displayName } = context.identity
    const named = { nodeId: device.id, displayName, client, address, surface }
    if (!(await requests.approveSurface(named))) this.#takeFirstSurface(entrant)
  }

  async #enterApproved(entrant: Entrant): Promise<Welcome> {
    const { readAuth, surfaces } = this.#options
    const welcome = await this.#greetApproved(entrant, readAuth())
    await this.#confirm(entrant, welcome)
    this.#markEnrolled(entrant)
    surfaces.check()
    return welcome
  }

  /** Looks at what the gateway has made of an approval, this one or one that was cut off before. */
  async #confirm({ context, device }: Entrant, { gateway }: Welcome): Promise<void> {
    const { ephemeral, requests } = this.#options
    try {
      await raceAbort(requests.confirm(device), context.signal)
      this.#unconfirmed.delete(device.id)
    } catch (error) {
      await destroySocket(gateway.socket)
      ephemeral.discard(device.id, context.identity)
      throw error
    }
  }

  /** One approval an admission: a gateway that asks for another one is not asked again. */
  async #greetApproved(entrant: Entrant, auth: GatewayAuth): Promise<Welcome> {
    try {
      return await this.#whileChanging(entrant, () => this.#greet(entrant, auth))
    } catch (cause) {
      if (cause instanceof ConnectRefused) throw new GatewayRefused(cause.reason, REFUSED_APPROVED)
      // As itself it would begin the enrolment again, with another approval.
      if (isOfAChange(cause)) throw new Fault('gateway_refused', REFUSED_APPROVED, { cause })
      throw cause
    }
  }

  #markEnrolled({ device, context }: Entrant): void {
    const { devices, onEnrolled } = this.#options
    devices.markEnrolled(device.id)
    onEnrolled(device.id, context.identity.podName)
  }

  #greet(entrant: Entrant, auth: GatewayAuth): Promise<Welcome> {
    return enterGateway(entrant, auth, this.#options)
  }
}

/** A gateway of 2026.5 closes without an answer when its records change while it reads them. */
const isOfAChange = (error: unknown): boolean =>
  isRefusedAs(error, PAIRING_CHANGED) || (error instanceof HandshakeClosed && error.isUnanswered)

const isRefusedAs = (error: unknown, reason: string): boolean =>
  error instanceof ConnectRefused && error.reason === reason
