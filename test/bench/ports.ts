/** Ports for peers that cannot choose one themselves, and the moment they listen. */

import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { waitForProcess } from '../kit/wait.ts'

const LISTENING_MS_MAX = 5000

export const freePort = async (): Promise<number> => {
  const server = createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  await once(server.close(), 'close')
  return port
}

/** Resolves when something accepts connections at host:port. */
export const accepting = async (address: string): Promise<void> => {
  const [host = '', port = ''] = address.split(':')
  await waitForProcess(`something listens on ${address}`, LISTENING_MS_MAX, async () => {
    const socket = connect({ host, port: Number(port) })
    try {
      await once(socket, 'connect')
      return true
    } finally {
      socket.destroy()
    }
  })
}
