/** The count of descriptors by which chaos and soak find what a sidecar has left open. */

import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { test } from 'tap'
import { countDescriptors } from '../kit/descriptors.ts'

test('every descriptor counts, except those to the one port', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const before = {
    without: countDescriptors(process.pid, port),
    all: countDescriptors(process.pid, 1),
  }
  const socket = connect(port, '127.0.0.1')
  const [far] = (await Promise.all([once(server, 'connection'), once(socket, 'connect')]))[0]
  t.equal(countDescriptors(process.pid, 1) - before.all, 2, 'both ends')
  t.equal(countDescriptors(process.pid, port) - before.without, 1, 'the other end')
  socket.destroy()
  far.destroy()
  server.close()
})
