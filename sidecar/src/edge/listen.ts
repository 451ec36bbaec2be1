/** Opens a fastify server's port and says where it really listens. */

import type { FastifyInstance } from 'fastify'

type Where = { readonly host: string; readonly port: number; readonly backlog?: number }

/** Resolves with `host:port`, an IPv6 host in brackets; port 0 takes any free one. */
export async function listenOn(app: FastifyInstance, where: Where): Promise<string> {
  await app.listen(where)
  const bound = app.server.address()
  if (bound === null || typeof bound === 'string') throw new Error('no port was bound')
  const { address, family, port } = bound
  return `${family === 'IPv6' ? `[${address}]` : address}:${port}`
}
