/** An admin port with parts that its user chooses, and bare connections to it. */

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import {
  createAdminPort,
  type AdminPortOptions,
} from '@openclaw-k8s/auth-sidecar/edge/admin-port.ts'
import { FakeClock } from './fake-clock.ts'
import { EMPTY_STATUS } from './status-sample.ts'

export const startAdminRig = async (given: Partial<AdminPortOptions> = {}) => {
  const clock = new FakeClock()
  const drained = Promise.withResolvers<{ streams: number }>()
  const port = createAdminPort({
    clock,
    connectionsMax: 64,
    watchPeer: () => {},
    onAcceptError: (error) => {
      throw error
    },
    renderMetrics: async () => ({ contentType: 'text/plain', body: 'metrics\n' }),
    checks: [],
    version: { version: 'test' },
    jwks: { keys: [] },
    isLocalAddress: () => true,
    status: { read: async () => EMPTY_STATUS, objection: undefined },
    drain: { run: () => drained.promise, isProven: () => true },
    ...given,
  })
  const address = await port.listen('127.0.0.1', 0)
  return {
    clock,
    drained,
    port: Number(address.split(':').at(-1)),
    url: `http://${address}`,
    close: () => port.close(),
  }
}

/** A bare connection that reads nothing until it is told to. */
export const dialFrom = async (port: number, localAddress = '127.0.0.1'): Promise<Socket> => {
  const socket = connect({ host: '127.0.0.1', port, localAddress })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** Everything the peer sends until it ends the connection. */
export const readAll = async (socket: Socket): Promise<string> => {
  let text = ''
  socket.on('data', (chunk: Buffer) => void (text += chunk.toString('latin1')))
  await new Promise<void>((resolve) => {
    if (socket.closed) resolve()
    else socket.once('close', () => resolve())
  })
  return text
}
