/** The pairing of a gateway, as far as the sidecar meets it: devices, bootstrap tokens, surfaces. */

import { randomUUID } from 'node:crypto'
import type { GatewayStubOptions } from '@openclaw-k8s/gateway-stub'

type PairedDevice = {
  readonly deviceId: string
  readonly displayName?: string
  readonly clientId: string
}

type Pairing = { readonly device: PairedDevice; readonly commands: readonly string[] }

type PendingSurface = {
  readonly requestId: string
  readonly nodeId: string
  readonly commands: readonly string[]
}

export type PairedDevices = ReturnType<typeof createPairedDevices>

/** Answers as the real gateway does; everything it was asked is in `calls`. */
export const createPairedDevices = (secret: string) => {
  const bootstrapTokens = new Set<string>()
  const paired = new Map<string, Pairing>()
  const pending = new Map<string, PendingSurface>()
  const calls: { readonly method: string; readonly params: Readonly<Record<string, unknown>> }[] =
    []
  const waiters = new Set<() => void>()

  const answer =
    (method: string, run: (params: Readonly<Record<string, unknown>>) => unknown) =>
    (params: Readonly<Record<string, unknown>>): unknown => {
      calls.push({ method, params })
      queueMicrotask(() => {
        for (const wake of waiters) wake()
      })
      return run(params)
    }

  const methods = {
    'device.pair.list': () => ({
      pending: [],
      paired: [...paired.values()].map(({ device }) => device),
    }),
    'device.pair.setupCode': () => {
      const bootstrapToken = randomUUID()
      bootstrapTokens.add(bootstrapToken)
      const setup = JSON.stringify({ url: 'ws://127.0.0.1:18789', bootstrapToken })
      return { setupCode: Buffer.from(setup).toString('base64url') }
    },
    'device.pair.remove': ({ deviceId }: Readonly<Record<string, unknown>>) => {
      if (!paired.delete(String(deviceId))) throw new Error('unknown deviceId')
      return { deviceId }
    },
    'node.pair.list': () => ({ pending: [...pending.values()], paired: [] }),
    'node.pair.approve': ({ requestId }: Readonly<Record<string, unknown>>) => {
      if (!pending.delete(String(requestId))) throw new Error('unknown requestId')
      return { requestId }
    },
  }

  const gateway: GatewayStubOptions = {
    mode: 'openclaw',
    token: secret,
    bootstrapTokens,
    methods: Object.fromEntries(
      Object.entries(methods).map(([method, run]) => [method, answer(method, run)]),
    ),
    pair({ role, auth, device }, params) {
      if (role !== 'node' || device === undefined) return undefined
      const { client, commands = [] } = params as {
        readonly client: { readonly id: string; readonly displayName?: string }
        readonly commands?: readonly string[]
      }
      const known = paired.get(device.id)
      if (known === undefined && auth.bootstrapToken === undefined) {
        return { code: 'PAIRING_REQUIRED', message: 'pairing required' }
      }
      const { id: clientId, displayName = '' } = client
      if (known === undefined) {
        paired.set(device.id, {
          device: { deviceId: device.id, clientId, displayName },
          commands,
        })
      } else if (commands.some((command) => !known.commands.includes(command))) {
        const requestId = randomUUID()
        pending.set(requestId, { requestId, nodeId: device.id, commands })
      }
      return undefined
    },
  }

  const listCalls = (method: string) => calls.filter((call) => call.method === method)
  return {
    secret,
    gateway,
    paired,
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
