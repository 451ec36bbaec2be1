/** Enrolment by approval: finds exactly the pod's own pairing request, approves it, checks the result. */

import * as z from 'zod'
import { Fault } from '../../fault.ts'
import { normalizeAddress } from '../../lib/address.ts'
import type { Device } from './device-key.ts'
import { callDeviceList } from './device-list.ts'
import type { Surface } from './gateway-connect.ts'
import type { GatewayTraits } from './gateway-traits.ts'
import { CallRefused, type OperatorChannel } from './operator-channel.ts'
import { CLIENT_ID, CLIENT_MODE, ROLE } from './presented-credential.ts'

/** What a request must be to be ours. */
export type OwnRequest = {
  readonly device: Pick<Device, 'id' | 'publicKey'>
  /** The worker's address, as the gateway was told. */
  readonly address: string
}

/** A node as an operator names it when it asks for the approval of its surface. */
export type NamedSurface = {
  readonly nodeId: string
  readonly displayName: string
  readonly client: {
    readonly platform: string
    readonly version: string
    readonly deviceFamily?: string | undefined
  }
  readonly address: string
  readonly surface: Surface
}

const NO_SCOPES = z.array(z.string()).length(0)
const NODE_ROLES = z.tuple([z.literal(ROLE)])

/** Exactly a node host without scopes. Anything else is not ours, whatever its id. */
const REQUEST = z.object({
  requestId: z.string().min(1).max(256),
  publicKey: z.string(),
  clientId: z.literal(CLIENT_ID),
  clientMode: z.literal(CLIENT_MODE),
  role: z.literal(ROLE).optional(),
  roles: NODE_ROLES,
  scopes: NO_SCOPES,
  remoteIp: z.string(),
  isRepair: z.boolean().optional(),
})

const RECORD = z.object({
  publicKey: z.string(),
  role: z.literal(ROLE).optional(),
  roles: NODE_ROLES,
  scopes: NO_SCOPES.optional(),
  tokens: z.array(z.object({ role: z.literal(ROLE), scopes: NO_SCOPES.optional() })).optional(),
})

/** Only entries of our own device are read further: a foreign one must not stop the enrolment. */
const ENTRIES = z.array(z.looseObject({ deviceId: z.string().optional() }).catch({}))
const LIST = z.object({ pending: ENTRIES, paired: ENTRIES })
const SURFACE_REQUEST = z.object({
  request: z.object({
    requestId: z.string().min(1).max(256),
    nodeId: z.string(),
    commands: z.array(z.string()).default([]),
    caps: z.array(z.string()).default([]),
    permissions: z.record(z.string(), z.boolean()).default({}),
  }),
})
/** Somebody has decided about the request meanwhile. */
export const UNKNOWN_REQUEST = 'unknown requestId'
/** The most requests of one device that are rejected at once; the gateway forgets them by itself. */
const REJECTED_MAX = 8

/** Every method throws a `Fault` when the gateway gives no answer, or not the right one. */
export class PairingRequests {
  readonly #channel: Pick<OperatorChannel, 'call'>
  readonly #traits: GatewayTraits

  constructor(channel: Pick<OperatorChannel, 'call'>, traits: GatewayTraits) {
    this.#channel = channel
    this.#traits = traits
  }

  /** The id of the one pending request that is ours in every member. */
  async find({ device, address }: OwnRequest): Promise<string> {
    const { pending, paired } = await this.#list(device.id)
    const [entry, ...others] = pending
    if (entry === undefined || others.length > 0)
      throw refused(`the gateway has ${pending.length} pairing requests of the device, not one`)
    const request = REQUEST.safeParse(entry)
    if (!request.success)
      throw refused('the pairing request of the device is not that of a node without scopes')
    const { publicKey, remoteIp, isRepair = false, requestId } = request.data
    if (publicKey !== device.publicKey)
      throw refused('the pairing request of the device is for another key')
    if (normalizeAddress(remoteIp) !== address)
      throw refused('the pairing request of the device is from another address')
    const isKnown = paired.some((record) => record['publicKey'] === device.publicKey)
    if (isRepair && !isKnown)
      throw refused('the pairing request of the device would replace a record that is not ours')
    return requestId
  }

  async approve(requestId: string): Promise<void> {
    await this.#call('device.pair.approve', { requestId })
  }

  /** The gateway's record of the device must give it what a node has, and nothing else. */
  async confirm(device: Pick<Device, 'id' | 'publicKey'>): Promise<void> {
    const { paired } = await this.#list(device.id)
    const [entry, ...others] = paired
    const record = RECORD.safeParse(entry)
    if (others.length > 0 || !record.success || record.data.publicKey !== device.publicKey)
      throw refused("the gateway's record of the device is not that of a node without scopes")
  }

  /** Rejects whatever still waits for approval under the device's id. */
  async reject(deviceId: string): Promise<void> {
    const { pending } = await this.#list(deviceId)
    for (const { requestId } of pending.slice(0, REJECTED_MAX)) {
      await this.#call('device.pair.reject', { requestId }, UNKNOWN_REQUEST)
    }
  }

  /**
   * Has the surface approved before its node connects, so that its commands are there at once. The
   * gateway counts a first surface that comes with a `connect` as an attempt of that address, and
   * locks the address out after ten in a minute. Returns false if the gateway is too new for this,
   * or has added to the request what an earlier one asked for: that is for `Surfaces` to decide.
   */
  async approveSurface(named: NamedSurface): Promise<boolean> {
    if (!this.#traits.hasSurfaceRequests) return false
    const { nodeId, displayName, client, address, surface } = named
    const { platform, version, deviceFamily } = client
    const { commands, caps, permissions } = surface
    try {
      const answer = await this.#channel.call('node.pair.request', {
        nodeId,
        displayName,
        platform,
        version,
        deviceFamily,
        remoteIp: address,
        commands,
        caps,
        permissions,
      })
      const asked = SURFACE_REQUEST.safeParse(answer)
      if (!asked.success) throw unreadable('answer to the request of a surface')
      const { request } = asked.data
      if (request.nodeId !== nodeId || !isWithin(request, surface)) return false
      // `Surfaces` saw the request too, and may have been first.
      await this.#call('node.pair.approve', { requestId: request.requestId }, UNKNOWN_REQUEST)
      return true
    } catch (error) {
      const isLearned =
        error instanceof CallRefused && this.#traits.learnSurfaceRequests(error.message)
      return isLearned ? false : asFault(error)
    }
  }

  /** What the gateway has under the id, now: a list that began earlier could lack it. */
  async #list(deviceId: string) {
    const list = LIST.safeParse(await callDeviceList(this.#channel).catch(asFault))
    if (!list.success) throw unreadable('device list')
    const isOurs = (entry: { readonly deviceId?: string | undefined }) =>
      entry.deviceId === deviceId
    return { pending: list.data.pending.filter(isOurs), paired: list.data.paired.filter(isOurs) }
  }

  /** A refusal with the text `forgiven` counts as done. */
  async #call(method: string, params: object, forgiven?: string): Promise<unknown> {
    try {
      return await this.#channel.call(method, params)
    } catch (error) {
      const isForgiven =
        error instanceof CallRefused && forgiven !== undefined && error.message.includes(forgiven)
      return isForgiven ? undefined : asFault(error)
    }
  }
}

const isWithin = (asked: Surface, { commands = [], caps = [], permissions }: Surface): boolean => {
  const allowed = new Map(Object.entries(permissions ?? {}))
  return (
    (asked.commands ?? []).every((command) => commands.includes(command)) &&
    (asked.caps ?? []).every((capability) => caps.includes(capability)) &&
    Object.entries(asked.permissions ?? {}).every(([name, value]) => allowed.get(name) === value)
  )
}

/** The worker cannot help it, and the operator should look: a fault. */
const refused = (message: string): Fault => new Fault('gateway_refused', message)
const asFault = (error: unknown): never => {
  throw error instanceof CallRefused ? refused(error.message) : error
}
const unreadable = (what: string): Fault =>
  new Fault('operator_unavailable', `the gateway's ${what} cannot be read`)
