/** Ports for peers that cannot choose one themselves, and the moment they listen. */

import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

const POLL_MS = 20
const POLLS_MAX = 250

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
  for (let polls = 0; polls < POLLS_MAX; polls += 1) {
    const socket = connect({ host, port: Number(port) })
    const isOpen = await once(socket, 'connect').then(
      () => true,
      () => false,
    )
    socket.destroy()
    if (isOpen) return
    await sleep(POLL_MS)
  }
  throw new Error(`nothing listens on ${address}`)
}
