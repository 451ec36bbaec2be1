/** The admin port: metrics, probes, version, the assertion's key, status and drain; never a worker. */

import { createServer, type RequestListener, type Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import fastify, { type FastifyInstance } from 'fastify'
import type { JSONWebKeySet } from 'jose'
import type { Clock } from '../lib/clock.ts'
import { normalizeAddress } from '../lib/address.ts'
import type { Drained } from '../admissions/registry.ts'
import { AdminConnections, eventStreamsMax } from './admin-connections.ts'
import { PROOF_HEADER } from './drain-proof.ts'
import { listenOn, NO_SCHEMAS, onServerError } from './fastify.ts'
import { judgeReadiness, type CheckResult, type ReadinessCheck } from './readiness.ts'
import { oneAtATime, stopParserAfter } from './one-at-a-time.ts'
import { serveStatus, type StatusPortOptions } from './status-port.ts'

export type AdminPortOptions = {
  readonly clock: Clock
  /** The most connections at once; at most 64. */
  readonly connectionsMax: number
  /** For receiving a request, and for the next one to start, in milliseconds. Default 5000. */
  readonly requestTimeoutMs?: number
  /** Called with every accepted socket. */
  readonly watchPeer: (stream: Duplex) => void
  /** A connection could not be accepted. */
  readonly onAcceptError: (error: Error) => void
  readonly renderMetrics: () => Promise<{ readonly contentType: string; readonly body: string }>
  readonly checks: readonly ReadinessCheck[]
  readonly version: object
  readonly jwks: JSONWebKeySet
  /** Whether an address can only belong to this machine. */
  readonly isLocalAddress: (address: string) => boolean
  readonly status: Pick<StatusPortOptions, 'read' | 'objection'>
  readonly drain: {
    /** Resolves when the drain is over; a running drain is joined. */
    readonly run: () => Promise<Drained>
    /** Whether the caller is the command of this very sidecar. */
    readonly isProven: (proof: string) => boolean
  }
}

export type AdminPort = {
  readonly listen: (host: string, port: number) => Promise<string>
  readonly close: () => Promise<void>
}

const PER_ADDRESS_MAX = 8
const HEAD_BYTES_MAX = 8 * 1024
const HEADERS_MAX = 64
const BODY_BYTES_MAX = 1024
/**
 * From the first byte of a connection or request to its last, and from an answer to the next
 * request, in milliseconds.
 */
const REQUEST_TIMEOUT_MS = 5000
/** From an answer to the moment the peer has received it, in milliseconds. */
const ANSWER_TIMEOUT_MS = 5000
/** How often Node checks for requests that timed out, in milliseconds. */
const CHECK_INTERVAL_MS = 1000
const PIPELINED_MAX = 8
/** The most requests in one chunk; a body of `BODY_BYTES_MAX` may look like some. */
const PARSED_MAX = 16
const REQUESTS_PER_CONNECTION_MAX = 100

export function createAdminPort(options: AdminPortOptions): AdminPort {
  const app = createApp(options)

  app.get('/metrics', async (_request, reply) => {
    const { contentType, body } = await options.renderMetrics()
    return reply.type(contentType).send(body)
  })
  // Shows that the event loop runs, and checks nothing else.
  app.get('/livez', async (_request, reply) => reply.type('text/plain').send('ok\n'))
  app.get<{ Querystring: { verbose?: string } }>('/readyz', async (request, reply) => {
    const { isReady, results } = await judgeReadiness(options.checks)
    const lines = results.flatMap(describeCheck)
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
    const { run, isProven } = options.drain
    const proof = request.headers[PROOF_HEADER]
    // A mesh's proxy forwards foreign requests from a local address: that alone proves nothing.
    const isOurs = isLocalPeer(request.raw.socket, options.isLocalAddress)
    if (isOurs && typeof proof === 'string' && isProven(proof)) return run()
    return reply.code(403).type('text/plain').send(DRAIN_REFUSED)
  })
  serveStatus(app, {
    ...options,
    ...options.status,
    eventStreamsMax: eventStreamsMax(options.connectionsMax),
  })

  return {
    listen: (host, port) => listenOn(app, { host, port }),
    close: () => app.close(),
  }
}

/**
 * Anyone in the cluster may be able to connect here, and each byte held is one less for workers.
 */
function createApp({
  clock,
  connectionsMax,
  requestTimeoutMs = REQUEST_TIMEOUT_MS,
  watchPeer,
  onAcceptError,
}: AdminPortOptions): FastifyInstance {
  const connections = new AdminConnections({ max: connectionsMax, perAddressMax: PER_ADDRESS_MAX })
  const app = fastify({
    forceCloseConnections: true,
    bodyLimit: BODY_BYTES_MAX,
    schemaController: NO_SCHEMAS,
    serverFactory: (handler) => createBoundedServer(handler, requestTimeoutMs),
  })
  app.server.prependListener('connection', (socket: Socket) => {
    watchPeer(socket)
    connections.accept(socket)
  })
  app.server.on('connection', (socket: Socket) => stopParserAfter(socket, PARSED_MAX))
  onServerError(app.server, onAcceptError)
  // After the body: a peer that withholds it is not waiting for us.
  app.addHook('preHandler', async ({ raw }) => connections.setBusy(raw.socket, true))
  app.addHook('onSend', async ({ raw: { socket } }, reply) => {
    connections.setBusy(socket, false)
    const cancel = clock.after(ANSWER_TIMEOUT_MS, () => socket.destroy())
    reply.raw.once('close', cancel)
  })
  return app
}

function createBoundedServer(handler: RequestListener, requestTimeoutMs: number): Server {
  const answer = oneAtATime(handler, {
    waitingMax: PIPELINED_MAX,
    perConnectionMax: REQUESTS_PER_CONNECTION_MAX,
  })
  const limits = {
    maxHeaderSize: HEAD_BYTES_MAX,
    headersTimeout: requestTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: requestTimeoutMs,
    connectionsCheckingInterval: Math.min(CHECK_INTERVAL_MS, requestTimeoutMs),
  }
  const server = createServer(limits, answer)
  server.maxHeadersCount = HEADERS_MAX
  // Node would answer these itself, out of order.
  server.on('checkExpectation', answer)
  return server
}

/** `ok` only where nothing is wrong. */
const describeCheck = ({ name, objection, warnings }: CheckResult): readonly string[] => {
  if (objection !== undefined) return [`[-] ${name}: ${objection}\n`]
  if (warnings.length === 0) return [`[+] ${name} ok\n`]
  return warnings.map((warning) => `[!] ${name}: ${warning}\n`)
}

const DRAIN_REFUSED =
  "A drain can only be requested in the sidecar's container: run auth-sidecar drain.\n"

/** Whether the peer is on loopback, or both ends have the same address. */
function isLocalPeer(socket: Socket, isLocalAddress: (address: string) => boolean): boolean {
  const peer = normalizeAddress(socket.remoteAddress)
  if (peer === undefined) return false
  return isLocalAddress(peer) || peer === normalizeAddress(socket.localAddress)
}
