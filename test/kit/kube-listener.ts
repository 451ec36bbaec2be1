/** Where the embedded API server listens: TLS with its own CA, stopped and started at will. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { createAuthority } from './authority.ts'

const SERVER_NAMES = ['localhost', '127.0.0.1', '::1', 'kubernetes.default.svc']
/** As the real one's idle timeout, so that no test loses a race against a closing connection. */
const KEEP_ALIVE_MS = 90_000

const CERTIFICATE = { commonName: 'kube-apiserver', hosts: SERVER_NAMES }

const createIdentity = async () => {
  const authority = await createAuthority()
  return { ca: authority.cert, certificate: await authority.issue(CERTIFICATE) }
}

/** Every listener of this process starts with the same one: making one is slow. */
let firstIdentity: ReturnType<typeof createIdentity> | undefined

type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void>

export const createTlsServer = async (
  options: { readonly host?: string; readonly port?: number },
  handle: Handler,
) => {
  const host = options.host ?? '127.0.0.1'
  firstIdentity ??= createIdentity()
  let identity = await firstIdentity
  const server = createServer(
    { ...identity.certificate, keepAliveTimeout: KEEP_ALIVE_MS },
    (request, response) => {
      handle(request, response).catch(() => response.destroy())
    },
  )
  const sockets = new Set<Socket>()
  const track = (socket: Socket): void => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
  }
  server.on('connection', track)
  server.on('secureConnection', track)
  server.on('tlsClientError', () => {})

  const listen = async (port: number): Promise<number> => {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, host, () => {
        server.off('error', reject)
        resolve()
      })
    })
    return (server.address() as AddressInfo).port
  }
  const port = await listen(options.port ?? 0)

  const controls = {
    /** The CA certificate in PEM; another one after `rotateAuthority`. */
    ca: (): string => identity.ca,
    /** Presents a certificate of a new CA from the next connection on. */
    rotateAuthority: async (): Promise<void> => {
      identity = await createIdentity()
      server.setSecureContext(identity.certificate)
    },
    /** Cuts every connection and keeps listening. */
    dropConnections: (): void => {
      for (const socket of sockets) socket.destroy()
    },
    /** Cuts every connection; the port refuses until `start`. Objects, keys and tokens stay. */
    stop: async (): Promise<void> => {
      if (!server.listening) return
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of sockets) socket.destroy()
      await closed
    },
    start: async (): Promise<void> => {
      if (!server.listening) await listen(port)
    },
  }
  return { port, controls }
}
