/** The moment a peer listens on its port. */

import { once } from 'node:events'
import { connect } from 'node:net'
import { waitForProcess } from '../kit/wait.ts'

const LISTENING_MS_MAX = 5000

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
