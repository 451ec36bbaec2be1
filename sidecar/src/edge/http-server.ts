/** The HTTP server under the worker port: refuses what is neither an upgrade nor session hosting. */

import { constants } from 'node:crypto'
import {
  createServer as createPlainServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { Server as TlsServer, type TLSSocket } from 'node:tls'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Clock } from '../lib/clock.ts'
import { CODES, type Code } from '../denial.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import { findPreamble } from './foreign-preamble.ts'
import { listenOn, NO_SCHEMAS, onServerError } from './fastify.ts'
import { stopParserAfter, type ParserStop } from './one-at-a-time.ts'
import { refusalBody, refusalHeaders, refuseUpgrade } from './refuse.ts'
import type { TlsMaterial } from './tls.ts'
import { TICKET_LIFETIME_S, TlsSessions } from './tls-sessions.ts'
import { HEADERS_MAX, findObjection } from './upgrade.ts'

export type HttpServerOptions = {
  /** TLS options of the port; `undefined` for plain TCP. */
  readonly tls: TlsMaterial | undefined
  readonly clock: Clock
  readonly random: () => number
  /** From the connection to the end of a request's head, in milliseconds. */
  readonly headTimeoutMs: number
  readonly onRefused: (code: Code, socket: Socket) => void
  /** Called with every accepted socket, and with every stream Node puts in front of one. */
  readonly watchPeer: (stream: Duplex) => void
  /** A connection could not be accepted. */
  readonly onAcceptError: (error: Error) => void
  /** A TLS handshake ended without a connection. */
  readonly onTlsFailure: (error: Error, socket: TLSSocket) => void
}

/** A plain request, the answer to it, and what lets its body be read. */
export type PlainRequest = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** At most once, in the turn in which the request is passed on; `length` is in bytes. */
  readonly passBody: (length: number) => void
}

export type HttpServer = {
  readonly server: Server
  /** Offers each plain request to `take`; one that it does not take is refused. */
  readonly onRequest: (take: (request: PlainRequest) => boolean) => void
  /**
   * Passes on each upgrade request with the bytes after its head. Its socket is `request.socket`.
   */
  readonly onUpgrade: (receive: (request: IncomingMessage, head: Buffer) => void) => void
  /** Applies to later TLS handshakes; does nothing without TLS. */
  readonly renewTls: (material: TlsMaterial) => void
  readonly listen: (host: string, port: number) => Promise<string>
  readonly close: () => Promise<void>
}

/** The longest head of a request (line and headers together), in bytes. */
const HEAD_BYTES_MAX = 16 * 1024
const BACKLOG = 4096

/** HTTP/1.1 only: if h2 were offered, a client could choose it and find no WebSocket there. */
const TLS_DEFAULTS = {
  ALPNProtocols: ['http/1.1'],
  // A renegotiation of TLS 1.2 costs us a handshake, no limit counts it, and WebSockets need none.
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
  sessionTimeout: TICKET_LIFETIME_S,
} as const

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { headTimeoutMs, onRefused, onAcceptError, tls, watchPeer } = options
  const ignoreErrorsOf = (stream: Duplex) => {
    watchPeer(stream)
    stream.on('error', ignoreError)
  }
  // The first request of a connection is upgraded, taken or refused: no other is read, and no body
  // that nobody asked for.
  const parsers = new WeakMap<Socket, ParserStop>()
  let take = (_request: PlainRequest): boolean => false
  const passBody = (socket: Socket, length: number) => parsers.get(socket)?.passBody(length)
  const preambles = new WeakMap<Duplex, Code>()
  const app = createApp(options, {
    take: (request, response) =>
      take({ request, response, passBody: (length) => passBody(request.socket, length) }),
    // Whatever follows the first head is not read, in whichever chunk it comes.
    endHead: (socket) => passBody(socket, 0),
    preambleOf: (socket) => preambles.get(socket),
  })
  onServerError(app.server, onAcceptError)

  const sessions = tls && resumeSessions(app.server, tls, options)
  // Before any other listener: a socket must not emit an error without a listener.
  app.server.prependListener('connection', ignoreErrorsOf)
  app.server.prependListener('secureConnection', ignoreErrorsOf)
  app.server.on(tls === undefined ? 'connection' : 'secureConnection', (socket: Socket) =>
    parsers.set(socket, stopParserAfter(socket, 1)),
  )
  if (tls === undefined) {
    app.server.on('connection', (socket: Socket) =>
      // In front of the listener that hides what follows an empty line.
      socket.prependOnceListener('data', (chunk: Buffer) => {
        const preamble = findPreamble(chunk)
        if (preamble !== undefined) preambles.set(socket, preamble)
      }),
    )
  }
  // If a request announces a body that has not arrived, Node passes its own `Duplex` instead of the
  // socket, and forwards the socket's errors to it. Such a request is always refused.
  const discard = (stream: Duplex) => {
    ignoreErrorsOf(stream)
    stream.resume()
  }
  app.server.on('tlsClientError', options.onTlsFailure)
  // Without a listener Node answers a CONNECT by silently closing the connection.
  app.server.on('connect', ({ socket }, stream) => {
    if (stream !== socket) discard(stream)
    onRefused('method_not_allowed', socket)
    refuseUpgrade(socket, 'method_not_allowed', options)
  })
  // Node would answer 100 or 417 by itself. No body is wanted, and the refusal is our own.
  for (const event of ['checkContinue', 'checkExpectation']) {
    app.server.on(event, (request, response) => app.server.emit('request', request, response))
  }
  // Node silently drops further headers; one more than the limit reveals that there are too many.
  app.server.maxHeadersCount = HEADERS_MAX + 1
  app.server.headersTimeout = headTimeoutMs
  app.server.requestTimeout = headTimeoutMs

  return {
    onRequest(taker) {
      take = taker
    },
    onUpgrade(receive) {
      app.server.on('upgrade', (request, stream, head) => {
        parsers.get(request.socket)?.lift()
        // It holds two bytes of Node's pool, and so all 64 KiB around them, for as long as the stream.
        parsers.delete(request.socket)
        if (stream !== request.socket) discard(stream)
        receive(request, head)
      })
    },
    server: app.server,
    renewTls(renewed) {
      if (!(app.server instanceof TlsServer)) return
      app.server.setSecureContext({ ...TLS_DEFAULTS, ...renewed })
      sessions?.begin(renewed)
    },
    listen: (host, port) => listenOn(app, { host, port, backlog: BACKLOG }),
    close: () => app.close(),
  }
}

/** Lets clients resume their TLS sessions, for as long as what was proven still holds. */
function resumeSessions(
  server: Server,
  tls: TlsMaterial,
  { clock, onTlsFailure }: Pick<HttpServerOptions, 'clock' | 'onTlsFailure'>,
): TlsSessions | undefined {
  if (!(server instanceof TlsServer)) return undefined
  const sessions = new TlsSessions(server, { clock })
  sessions.begin(tls)
  server.prependListener('connection', () => sessions.beforeHandshake())
  server.prependListener('secureConnection', (socket) => {
    const objection = sessions.findObjection(socket)
    if (objection === undefined) return
    onTlsFailure(objection, socket)
    socket.destroy()
  })
  return sessions
}

type Seams = {
  readonly take: Taker
  readonly endHead: (socket: Socket) => void
  /** What a connection that is not HTTP began with, where that is known. */
  readonly preambleOf: (socket: Duplex) => Code | undefined
}

type Taker = (request: IncomingMessage, response: ServerResponse) => boolean

function createApp(
  { tls, clock, random, onRefused }: HttpServerOptions,
  { take, endHead, preambleOf }: Seams,
): FastifyInstance {
  const answered = new WeakSet<Duplex>()
  const limits = {
    maxHeaderSize: HEAD_BYTES_MAX,
    connectionsCheckingInterval: 1000,
    // We also answer, and record, a request without a Host.
    requireHostHeader: false,
  }
  const replyRefusal = async (code: Code, request: FastifyRequest, reply: FastifyReply) => {
    onRefused(code, request.raw.socket)
    await reply
      .code(CODES[code].status)
      .headers({ ...refusalHeaders(code, random), Connection: 'close' })
      .send(refusalBody(code))
  }
  const app = fastify({
    forceCloseConnections: true,
    return503OnClosing: false,
    schemaController: NO_SCHEMAS,
    serverFactory: (handler) => {
      const handleFirst = firstOfEach((request, response) => {
        endHead(request.socket)
        if (!take(request, response)) handler(request, response)
      }, answered)
      return tls === undefined
        ? createPlainServer(limits, handleFirst)
        : createTlsServer({ ...limits, ...TLS_DEFAULTS, ...tls }, handleFirst)
    },
    clientErrorHandler(error, socket) {
      // A peer that is gone asked for nothing: a probe of the port, or a broken TLS handshake. One
      // that was already answered has a broken body after its request.
      const isGone = socket.destroyed || ('code' in error && error.code === 'ECONNRESET')
      if (isGone || socket.writableEnded) {
        socket.destroy()
        return
      }
      // The unreadable bytes follow a request whose answer ends the connection.
      if (answered.has(socket)) return
      const code = preambleOf(socket) ?? codeOf(error)
      onRefused(code, socket)
      if (socket.writable) refuseUpgrade(socket, code, { clock, random })
      else socket.destroy()
    },
    // The target is one that fastify's router cannot parse.
    frameworkErrors: (_error, request, reply) =>
      void replyRefusal('target_not_canonical', request as FastifyRequest, reply as FastifyReply),
  })
  app.addHook('onRequest', (request, reply) =>
    replyRefusal(findObjection(request.raw) ?? 'upgrade_required', request, reply),
  )
  return app
}

/**
 * Passes on only the first request of a connection, whose answer closes it. Node parses every
 * request of a segment, thousands of them, and would start to answer all before it writes the first
 * answer.
 */
function firstOfEach(handler: RequestListener, answered: WeakSet<Duplex>): RequestListener {
  return (request, response) => {
    const { socket } = request
    if (answered.has(socket)) return
    answered.add(socket)
    handler(request, response)
  }
}

function codeOf(error: Error & { code?: string }): Code {
  if (error.code === 'HPE_HEADER_OVERFLOW') return 'head_too_large'
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return 'handshake_timeout'
  return 'upgrade_malformed'
}
