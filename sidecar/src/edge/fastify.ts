/** What both ports need from fastify: no schemas, a port that opens, and accepts that may fail. */

import type { Server } from 'node:net'
import type { FastifyInstance, FastifyServerOptions } from 'fastify'

const refuse = (): never => {
  throw new Error('a route has a schema, but no schema compiler is installed')
}

/** No route has a schema, so no schema compiler is loaded. */
export const NO_SCHEMAS: NonNullable<FastifyServerOptions['schemaController']> = {
  compilersFactory: { buildValidator: refuse, buildSerializer: refuse },
}

type Where = { readonly host: string; readonly port: number; readonly backlog?: number }

/** Resolves with `host:port`, an IPv6 host in brackets; port 0 picks a free port. */
export async function listenOn(app: FastifyInstance, where: Where): Promise<string> {
  await app.listen(where)
  const bound = app.server.address()
  if (bound === null || typeof bound === 'string')
    throw new Error('the server is not bound to a port')
  const { address, family, port } = bound
  return `${family === 'IPv6' ? `[${address}]` : address}:${port}`
}

/**
 * Without a listener an `error` of the server ends the process. While the port is open, an error is
 * a connection that could not be accepted, for lack of descriptors or memory.
 */
export function onServerError(server: Server, onAcceptError: (error: Error) => void): void {
  server.on('error', (error) => {
    // An error of `listen` rejects its promise.
    if (server.listening) onAcceptError(error)
  })
}
