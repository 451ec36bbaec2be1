/** The pairing of a gateway, as far as the sidecar meets it: devices, bootstrap tokens, surfaces. */

import { randomUUID } from 'node:crypto'
import type { GatewayStubOptions } from '@openclaw-k8s/gateway-stub'

type PairedDevice = {
  readonly deviceId: string
  readonly displayName?: string
  readonly clientId: string
  readonly publicKey?: string
  readonly roles?: readonly string[]
  readonly scopes?: readonly string[]
}

type Pairing = { readonly device: PairedDevice; readonly commands: readonly string[] }

type PendingSurface = {
  readonly requestId: string
  readonly nodeId: string
  readonly commands: readonly string[]
}

/** A request for pairing, as `device.pair.list` shows it. */
export type PairingRequest = {
  readonly requestId: string
  readonly deviceId: string
  readonly publicKey: string
  readonly displayName: string
  readonly clientId: string
  readonly clientMode: string
  readonly role: string
  readonly roles: readonly string[]
  readonly scopes: readonly string[]
  readonly remoteIp: string
  readonly isRepair: boolean
}

type Params = Readonly<Record<string, unknown>>
type MethodName = 'device.pair.list' | 'device.pair.approve' | 'node.pair.request'

export type PairingOptions = {
  /**
   * A gateway before 2026.8: no bootstrap token for nodes, surfaces apart from devices, and an
   * operator may request the approval of a surface. Default false.
   */
  readonly isOlder?: boolean
  /** What such a gateway says to a request for a bootstrap token. Default: it does not know it. */
  readonly bootstrapRefusal?: string
  /** Runs before a call of that name is answered. */
  readonly before?: Partial<Readonly<Record<MethodName, (params: Params) => Promise<void> | void>>>
  /** Alters what waits for approval before it is listed. */
  readonly alterRequests?: (requests: readonly PairingRequest[]) => readonly object[]
  /** Alters a device that was approved. */
  readonly alterDevice?: (device: PairedDevice) => PairedDevice
}

export type PairedDevices = ReturnType<typeof createPairedDevices>

/** The gateway locks an address out at this many first surfaces in a minute. */
const FIRST_SURFACES_MAX = 10

/** Answers as the real gateway does; everything it was asked is in `calls`. */
export const createPairedDevices = (secret: string, options: PairingOptions = {}) => {
  const { isOlder = false, before = {}, alterRequests = (all) => all } = options
  const bootstrapTokens = new Set<string>()
  const paired = new Map<string, Pairing>()
  const requests = new Map<string, PairingRequest>()
  /** Devices whose surface was approved; only older gateways keep it apart from the device. */
  const surfaces = new Map<string, readonly string[]>()
  const pending = new Map<string, PendingSurface>()
  const firstSurfaces = new Map<string, number>()
  const calls: { readonly method: string; readonly params: Params }[] = []
  const waiters = new Set<() => void>()

  const answer =
    (method: string, run: (params: Params) => unknown) =>
    (params: Params): unknown => {
      calls.push({ method, params })
      queueMicrotask(() => {
        for (const wake of waiters) wake()
      })
      const wait = before[method as MethodName]?.(params)
      return wait === undefined ? run(params) : wait.then(() => run(params))
    }

  const requestSurface = (nodeId: string, commands: readonly string[]) => {
    const request = { requestId: randomUUID(), nodeId, commands }
    pending.set(request.requestId, request)
    return request
  }

  const older: Readonly<Record<string, (params: Params) => unknown>> = {
    'device.pair.setupCode': () => {
      throw new Error(options.bootstrapRefusal ?? "at root: unexpected property 'bootstrapProfile'")
    },
    'node.pair.request': ({ nodeId, commands }) => ({
      status: 'pending',
      request: requestSurface(String(nodeId), commands as readonly string[]),
    }),
  }

  const methods: Readonly<Record<string, (params: Params) => unknown>> = {
    'device.pair.list': () => ({
      pending: alterRequests([...requests.values()]),
      paired: [...paired.values()].map(({ device }) => device),
    }),
    'device.pair.setupCode': () => {
      const bootstrapToken = randomUUID()
      bootstrapTokens.add(bootstrapToken)
      const setup = JSON.stringify({ url: 'ws://127.0.0.1:18789', bootstrapToken })
      return { setupCode: Buffer.from(setup).toString('base64url') }
    },
    'device.pair.approve': ({ requestId }) => {
      const request = requests.get(String(requestId))
      if (request === undefined) throw new Error('unknown requestId')
      requests.delete(request.requestId)
      const { deviceId, displayName, clientId, publicKey, roles, scopes } = request
      const device = { deviceId, displayName, clientId, publicKey, roles, scopes }
      paired.set(deviceId, { device: options.alterDevice?.(device) ?? device, commands: [] })
      return { requestId, device }
    },
    'device.pair.reject': ({ requestId }) => {
      if (!requests.delete(String(requestId))) throw new Error('unknown requestId')
      return { requestId }
    },
    'device.pair.remove': ({ deviceId }) => {
      if (!isOlder) surfaces.delete(String(deviceId))
      if (!paired.delete(String(deviceId))) throw new Error('unknown deviceId')
      return { deviceId }
    },
    'node.pair.list': () => ({ pending: [...pending.values()], paired: [] }),
    'node.pair.approve': ({ requestId }) => {
      const request = pending.get(String(requestId))
      if (request === undefined) throw new Error('unknown requestId')
      pending.delete(request.requestId)
      surfaces.set(request.nodeId, request.commands)
      return { requestId }
    },
    'node.pair.remove': ({ nodeId }) => {
      if (!surfaces.delete(String(nodeId))) throw new Error('unknown nodeId')
      return { nodeId }
    },
    ...(isOlder ? older : {}),
  }

  const gateway: GatewayStubOptions = {
    mode: 'openclaw',
    token: secret,
    bootstrapTokens,
    methods: Object.fromEntries(
      Object.entries(methods).map(([method, run]) => [method, answer(method, run)]),
    ),
    pair({ role, scopes, auth, device }, params, connection) {
      if (role !== 'node' || device === undefined) return undefined
      const { client, commands = [] } = params as {
        readonly client: { readonly id: string; readonly mode: string; displayName?: string }
        readonly commands?: readonly string[]
      }
      const { id: clientId, mode: clientMode, displayName = '' } = client
      const { id: deviceId, publicKey } = device
      const remoteIp = String(connection.handshake.headers['x-forwarded-for'])
      if (!paired.has(deviceId) && auth.bootstrapToken === undefined) {
        const known = [...requests.values()].find((request) => request.deviceId === deviceId)
        const requestId = known?.requestId ?? randomUUID()
        requests.set(requestId, {
          requestId,
          deviceId,
          publicKey,
          displayName,
          clientId,
          clientMode,
          role,
          roles: [role],
          scopes,
          remoteIp,
          isRepair: false,
        })
        return { code: 'PAIRING_REQUIRED', message: 'pairing required', details: { requestId } }
      }
      if (!paired.has(deviceId)) {
        const record = { deviceId, clientId, displayName, publicKey, roles: [role], scopes }
        paired.set(deviceId, { device: record, commands })
      }
      const approved = surfaces.get(deviceId)
      if (approved === undefined) {
        const counted = (firstSurfaces.get(remoteIp) ?? 0) + 1
        if (counted >= FIRST_SURFACES_MAX) {
          return { code: 'AUTH_RATE_LIMITED', message: 'too many failed attempts' }
        }
        firstSurfaces.set(remoteIp, counted)
        if (auth.bootstrapToken === undefined) requestSurface(deviceId, commands)
        else surfaces.set(deviceId, commands)
      } else if (commands.some((command) => !approved.includes(command))) {
        requestSurface(deviceId, commands)
      }
      return undefined
    },
  }

  const listCalls = (method: string) => calls.filter((call) => call.method === method)
  return {
    secret,
    gateway,
    paired,
    requests,
    surfaces,
    pending,
    listCalls,
    names: () =>
      [...paired.values()].map(({ device }) => device.displayName ?? '').toSorted(byName),
    /** Resolves once the method was called `count` times since the start, and answered. */
    called: async (method: string, count: number): Promise<void> => {
      while (listCalls(method).length < count) {
        const { promise, resolve } = Promise.withResolvers<void>()
        waiters.add(resolve)
        await promise
        waiters.delete(resolve)
      }
    },
  }
}

const byName = (a: string, b: string): number => a.localeCompare(b)
