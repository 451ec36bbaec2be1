/** The admin port: metrics, probes, version, the assertion's public key and the drain. Never a worker. */

import type { Socket } from 'node:net'
import fastify from 'fastify'
import type { JSONWebKeySet } from 'jose'
import { normalizeAddress } from '../tunnel/address.ts'
import type { Drained } from '../tunnel/streams.ts'
import { PROOF_HEADER } from './drain-proof.ts'
import { listenOn } from './listen.ts'
import { NO_SCHEMAS } from './no-schemas.ts'

/** One condition of readiness; `undefined` is good, a string says what is missing. */
export type ReadinessCheck = {
  readonly name: string
  readonly check: () => string | undefined | Promise<string | undefined>
}

export type AdminPortOptions = {
  readonly renderMetrics: () => Promise<{ readonly contentType: string; readonly body: string }>
  readonly checks: readonly ReadinessCheck[]
  readonly version: object
  readonly jwks: JSONWebKeySet
  readonly drain: {
    /** Resolves when it is over; a drain under way is joined. */
    readonly run: () => Promise<Drained>
    /** Whether an address can only be this machine's own. */
    readonly isLocalAddress: (address: string) => boolean
    /** Whether the caller is the command of this very sidecar. */
    readonly isProven: (proof: string) => boolean
  }
}

export type AdminPort = {
  readonly listen: (host: string, port: number) => Promise<string>
  readonly close: () => Promise<void>
}

export function createAdminPort(options: AdminPortOptions): AdminPort {
  const app = fastify({
    forceCloseConnections: true,
    bodyLimit: 1024,
    schemaController: NO_SCHEMAS,
  })

  app.get('/metrics', async (_request, reply) => {
    const { contentType, body } = await options.renderMetrics()
    return reply.type(contentType).send(body)
  })
  // Says that the process turns its loop, and looks at nothing else.
  app.get('/livez', async (_request, reply) => reply.type('text/plain').send('ok\n'))
  app.get<{ Querystring: { verbose?: string } }>('/readyz', async (request, reply) => {
    const results = await Promise.all(
      options.checks.map(async ({ name, check }) => ({ name, objection: await check() })),
    )
    const isReady = results.every(({ objection }) => objection === undefined)
    const lines = results.map(({ name, objection }) =>
      objection === undefined ? `[+] ${name} ok\n` : `[-] ${name}: ${objection}\n`,
    )
    const verdict = isReady ? 'ok\n' : 'not ready\n'
    const isVerbose = request.query.verbose !== undefined || !isReady
    return reply
      .code(isReady ? 200 : 503)
      .type('text/plain')
      .send(isVerbose ? lines.join('') + verdict : verdict)
  })
  app.get('/version', async () => options.version)
  app.get('/.well-known/jwks.json', async () => options.jwks)
  app.post('/drain', async (request, reply) => {
    const { run, isLocalAddress, isProven } = options.drain
    const proof = request.headers[PROOF_HEADER]
    // A mesh's proxy hands strangers on from a local address: that alone proves nothing.
    const isOurs = isLocalPeer(request.raw.socket, isLocalAddress)
    if (isOurs && typeof proof === 'string' && isProven(proof)) return run()
    return reply.code(403).type('text/plain').send(DRAIN_REFUSED)
  })

  return {
    listen: (host, port) => listenOn(app, { host, port }),
    close: () => app.close(),
  }
}

const DRAIN_REFUSED = "A drain is asked for in the sidecar's own container: auth-sidecar drain.\n"

/** The peer is on loopback, or it dialled an address of its own. */
function isLocalPeer(socket: Socket, isLocalAddress: (address: string) => boolean): boolean {
  const peer = normalizeAddress(socket.remoteAddress)
  if (peer === undefined) return false
  return isLocalAddress(peer) || peer === normalizeAddress(socket.localAddress)
}
