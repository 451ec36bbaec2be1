/** The gateway's device records: lists, adds and removes them. */

import * as z from 'zod'
import { Fault } from '../../fault.ts'
import { callDeviceList } from './device-list.ts'
import type { GatewayTraits } from './gateway-traits.ts'
import { CallRefused, type OperatorChannel } from './operator-channel.ts'

/** A paired device, as far as it matters here. */
export type DeviceRecord = {
  readonly deviceId: string
  readonly displayName?: string | undefined
}

const LIST = z.object({
  paired: z.array(
    z.object({
      deviceId: z.string(),
      displayName: z.string().optional().catch(undefined),
      clientId: z.string().optional().catch(undefined),
    }),
  ),
})

const SETUP = z.object({ setupCode: z.string() })
const SETUP_CODE = z.object({ bootstrapToken: z.string().min(1) })

/** Goes into the setup code, which only we read; the gateway requires a URL it knows. */
const PUBLIC_URL = 'ws://127.0.0.1:18789'
const NODE_HOST = 'node-host'
/** The gateway's error messages for a device or a surface it does not have. */
const UNKNOWN = ['unknown deviceId', 'unknown nodeId', 'unknown method']

/** Every method throws a `Fault` when the gateway gives no answer. */
export class Devices {
  readonly #channel: Pick<OperatorChannel, 'call'>
  readonly #traits: GatewayTraits
  #enrolled = new Set<string>()
  #refresh: Promise<readonly DeviceRecord[]> | undefined
  #isListed = false

  constructor(channel: Pick<OperatorChannel, 'call'>, traits: GatewayTraits) {
    this.#channel = channel
    this.#traits = traits
  }

  /** Whether the gateway has the device. Lists the devices if that was not done yet. */
  async isEnrolled(deviceId: string): Promise<boolean> {
    if (!this.#isListed) await this.list()
    return this.#enrolled.has(deviceId)
  }

  /** All node hosts the gateway has now. Concurrent callers share one list. */
  list(): Promise<readonly DeviceRecord[]> {
    this.#refresh ??= this.#list().finally(() => {
      this.#refresh = undefined
    })
    return this.#refresh
  }

  /** The known devices may have changed in the meantime: the next question lists them again. */
  forget(): void {
    this.#isListed = false
  }

  /** The gateway has just accepted the device. */
  markEnrolled(deviceId: string): void {
    this.#enrolled.add(deviceId)
  }

  /**
   * A token with which one unknown device can enroll, once, as a node; `undefined` if this gateway
   * has none for nodes.
   */
  async mintBootstrapToken(): Promise<string | undefined> {
    if (!this.#traits.hasBootstrap) return undefined
    let payload: unknown
    try {
      payload = await this.#channel.call('device.pair.setupCode', {
        publicUrl: PUBLIC_URL,
        includeQr: false,
        bootstrapProfile: 'node',
      })
    } catch (error) {
      const isLearned = error instanceof CallRefused && this.#traits.learnBootstrap(error.message)
      return isLearned ? undefined : asFault(error)
    }
    const code = SETUP.safeParse(payload).data?.setupCode ?? ''
    const setup = SETUP_CODE.safeParse(parseBase64Json(code))
    if (!setup.success)
      throw new Fault('operator_unavailable', "the gateway's setup code cannot be read")
    return setup.data.bootstrapToken
  }

  /**
   * Removes the record, and the one of its surface, which gateways before 2026.8 keep apart. A
   * missing record counts as removed. The device goes last, as in OpenClaw's own pages: after a
   * removal that stopped half-way it is still listed, and the next clean-up finds it.
   */
  async remove(deviceId: string): Promise<void> {
    await this.#remove('node.pair.remove', { nodeId: deviceId })
    this.#enrolled.delete(deviceId)
    await this.#remove('device.pair.remove', { deviceId })
  }

  async #remove(method: string, params: object): Promise<void> {
    try {
      await this.#channel.call(method, params)
    } catch (error) {
      const isGone =
        error instanceof CallRefused && UNKNOWN.some((text) => error.message.includes(text))
      if (!isGone) asFault(error)
    }
  }

  async #list(): Promise<readonly DeviceRecord[]> {
    const list = LIST.safeParse(await callDeviceList(this.#channel).catch(asFault))
    if (!list.success)
      throw new Fault('operator_unavailable', "the gateway's device list cannot be read")
    const { paired } = list.data
    this.#enrolled = new Set(paired.map(({ deviceId }) => deviceId))
    this.#isListed = true
    return paired.filter(({ clientId = NODE_HOST }) => clientId === NODE_HOST)
  }
}

/** If the gateway refuses its own operator, the worker cannot fix that: a fault. */
const asFault = (cause: unknown): never => {
  throw cause instanceof CallRefused
    ? new Fault('operator_unavailable', cause.message, { cause })
    : cause
}

function parseBase64Json(text: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
  } catch {
    return undefined
  }
}
