/** The servers of this process that listen, by port: where a simulated connection arrives. */

import { subscribe } from 'node:diagnostics_channel'
import type { Server as NetServer, Socket } from 'node:net'
import { Server as TlsServer } from 'node:tls'

const listening = new Map<number, NetServer>()

// Documented by Node as the moment in which `listen` is called.
subscribe('tracing:net.server.listen:asyncStart', (message) => {
  const { server } = message as { readonly server: NetServer }
  server.once('listening', () => {
    const address = server.address()
    if (address === null || typeof address === 'string') return
    listening.set(address.port, server)
    // Node's own timers for HTTP know no clock but the machine's: on a slow one they would end what a
    // day has not finished. The sidecar's own limits remain.
    Object.assign(server, { headersTimeout: 0, requestTimeout: 0, keepAliveTimeout: 0 })
    server.once('close', () => listening.delete(address.port))
  })
})

/**
 * Hands a socket to the server of this port, as an accepted one; false if none listens. A TLS server
 * gets it as if its handshake were over: the simulation has no TLS.
 */
export const offerTo = (port: number, socket: Socket): boolean => {
  const server = listening.get(port)
  if (server === undefined) return false
  server.emit(server instanceof TlsServer ? 'secureConnection' : 'connection', socket)
  return true
}
