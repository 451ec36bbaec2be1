/** The gateway's owner on clean loopback: asks the gateway itself what it knows. */

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { WebSocket, type RawData } from 'ws'

export type PairedDevice = {
  readonly deviceId: string
  readonly displayName?: string
  readonly clientId?: string
}
export type PendingDevice = { readonly requestId: string; readonly deviceId: string }
export type ListedNode = {
  readonly nodeId: string
  readonly displayName?: string
  readonly connected?: boolean
  readonly commands?: readonly string[]
}
export type Operator = Awaited<ReturnType<typeof connectOperator>>

type Answer = {
  readonly type: string
  readonly id?: string
  readonly ok?: boolean
  readonly event?: string
  readonly payload?: unknown
  readonly error?: { readonly code?: string; readonly message?: string }
}

const CALL_LIMIT_MS = 30_000

/** `auth` is `{token}` or `{password}`, as the gateway's mode has it. */
export const connectOperator = async (
  url: string,
  auth: Readonly<Record<string, string>>,
  limitMs = CALL_LIMIT_MS,
) => {
  const socket = new WebSocket(url, { perMessageDeflate: false })
  socket.on('error', () => {})
  const waiting = new Map<string, (answer: Answer) => void>()
  const challenged = Promise.withResolvers<void>()
  socket.on('message', (data: RawData) => {
    const answer = JSON.parse((data as Buffer).toString()) as Answer
    if (answer.event === 'connect.challenge') challenged.resolve()
    const { id = '' } = answer
    waiting.get(id)?.(answer)
    waiting.delete(id)
  })
  socket.on('close', () => {
    const gone = { type: 'res', ok: false, error: { message: 'the gateway closed the connection' } }
    for (const settle of waiting.values()) settle(gone)
    waiting.clear()
    challenged.resolve()
  })

  const call = async <T = unknown>(method: string, params: object = {}): Promise<T> => {
    const id = randomUUID()
    const answered = new Promise<Answer>((resolve) => waiting.set(id, resolve))
    const late: Answer = { type: 'res', ok: false, error: { message: 'no answer' } }
    const timer = setTimeout(() => waiting.get(id)?.(late), limitMs)
    socket.send(JSON.stringify({ type: 'req', id, method, params }))
    const { ok, payload, error } = await answered
    clearTimeout(timer)
    if (ok !== true) throw new Error(`${method}: ${error?.code ?? ''} ${error?.message ?? ''}`)
    return payload as T
  }

  await challenged.promise
  await call('connect', {
    minProtocol: 4,
    maxProtocol: 4,
    client: { id: 'gateway-client', version: '0.0.0', platform: 'linux', mode: 'backend' },
    role: 'operator',
    scopes: ['operator.admin'],
    caps: [],
    auth,
  })
  return {
    call,
    devices: async () =>
      (await call<{ paired: readonly PairedDevice[] }>('device.pair.list')).paired,
    pendingDevices: async () =>
      (await call<{ pending: readonly PendingDevice[] }>('device.pair.list')).pending,
    nodes: async () => (await call<{ nodes: readonly ListedNode[] }>('node.list')).nodes,
    invoke: (nodeId: string, command: string, params: object) =>
      call<{ readonly payload?: unknown; readonly payloadJSON?: string }>('node.invoke', {
        nodeId,
        command,
        params,
        timeoutMs: 15_000,
        idempotencyKey: randomUUID(),
      }),
    close: async (): Promise<void> => {
      if (socket.readyState === WebSocket.CLOSED) return
      const closed = once(socket, 'close')
      socket.close()
      await closed
    },
  }
}
