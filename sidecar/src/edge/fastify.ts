/** What both ports need from fastify: no schemas, a port that opens, and accepts that may fail. */

import type { Server } from 'node:net'
import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import { bracketed } from '../lib/address.ts'

const refuse = (): never => {
  throw new Error('a route has a schema, but no schema compiler is installed')
}

/** No route has a schema, so no schema compiler is loaded. */
export const NO_SCHEMAS: NonNullable<FastifyServerOptions['schemaController']> = {
  compilersFactory: { buildValidator: refuse, buildSerializer: refuse },
}

type Where = { readonly host: string; readonly port: number; readonly backlog?: number }

/** What `::` fails with where the kernel has no IPv6. */
const NO_IPV6 = ['EAFNOSUPPORT', 'EADDRNOTAVAIL']
const EVERY_ADDRESS = '::'
const EVERY_IPV4_ADDRESS = '0.0.0.0'

/**
 * For this name fastify opens a second server where the machine calls `::1` so too, with none of the
 * listeners that bound the first one.
 */
const BOTH_LOOPBACKS = 'localhost'
const LOOPBACK = '127.0.0.1'

/**
 * Resolves with `host:port`, an IPv6 host in brackets; port 0 picks a free port. The host `::` is
 * every address of the machine, of both families: without IPv6, every IPv4 address. `localhost` is
 * 127.0.0.1.
 */
export async function listenOn(app: FastifyInstance, where: Where): Promise<string> {
  const host = where.host === BOTH_LOOPBACKS ? LOOPBACK : where.host
  try {
    await app.listen({ ...where, host })
  } catch (error) {
    if (host !== EVERY_ADDRESS || !hasCode(error, NO_IPV6)) throw error
    await app.listen({ ...where, host: EVERY_IPV4_ADDRESS })
  }
  const bound = app.server.address()
  if (bound === null || typeof bound === 'string')
    throw new Error('the server is not bound to a port')
  return `${bracketed(bound.address)}:${bound.port}`
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

/** Whether a port that was asked for every address, and got `bound`, is on IPv4 alone. */
export const isWithoutIpv6 = (host: string | undefined, bound: string): boolean =>
  host === EVERY_ADDRESS && bound.startsWith(`${EVERY_IPV4_ADDRESS}:`)

const hasCode = (error: unknown, codes: readonly string[]): boolean =>
  error instanceof Error && 'code' in error && codes.includes(String(error.code))
