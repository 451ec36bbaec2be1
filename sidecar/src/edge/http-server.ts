/** The HTTP server under the worker port: refuses everything that is no upgrade. */

import { createServer as createPlainServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Socket } from 'node:net'
import { Server as TlsServer, type SecureContextOptions, type TlsOptions } from 'node:tls'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { CODES, type Code } from '../denial.ts'
import { listenOn } from './listen.ts'
import { NO_SCHEMAS } from './no-schemas.ts'
import { refusalBody, refusalHeaders, refusalResponse } from './refuse.ts'
import { findObjection } from './upgrade.ts'

export type HttpServerOptions = {
  /** TLS for the port; plain where it is `undefined`. */
  readonly tls: TlsOptions | undefined
  readonly random: () => number
  /** From the connection to the end of a request's head, in milliseconds. */
  readonly headTimeoutMs: number
  readonly onRefused: (code: Code, socket: Socket) => void
}

export type HttpServer = {
  readonly server: Server
  /** For handshakes from now on; without TLS it does nothing. */
  readonly renewTls: (options: SecureContextOptions) => void
  readonly listen: (host: string, port: number) => Promise<string>
  readonly close: () => Promise<void>
}

/** Bytes of a request's head (line and headers together). */
export const HEAD_BYTES_MAX = 16 * 1024
const BACKLOG = 4096

/** HTTP/1.1 alone: with h2 on offer a client could choose it and find no WebSocket there. */
const TLS_DEFAULTS = { minVersion: 'TLSv1.2', ALPNProtocols: ['http/1.1'] } as const

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { random, headTimeoutMs, onRefused } = options
  const app = createApp(options)

  // Node answers a CONNECT without a listener by cutting the connection, without a word.
  app.server.on('connect', (_request, socket) => {
    onRefused('method_not_allowed', socket as Socket)
    socket.on('error', () => {})
    socket.end(refusalResponse('method_not_allowed', random))
  })
  app.server.on('checkExpectation', (request, response) => {
    app.server.emit('request', request, response)
  })
  app.server.headersTimeout = headTimeoutMs
  app.server.requestTimeout = headTimeoutMs

  return {
    server: app.server,
    renewTls(tls) {
      if (app.server instanceof TlsServer) {
        app.server.setSecureContext({ ...TLS_DEFAULTS, ...tls })
      }
    },
    listen: (host, port) => listenOn(app, { host, port, backlog: BACKLOG }),
    close: () => app.close(),
  }
}

function createApp({ tls, random, onRefused }: HttpServerOptions): FastifyInstance {
  const limits = {
    maxHeaderSize: HEAD_BYTES_MAX,
    connectionsCheckingInterval: 1000,
    // Ours is the answer, and the record, to a request without a Host too.
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
    serverFactory: (handler) =>
      tls === undefined
        ? createPlainServer(limits, handler)
        : createTlsServer({ ...limits, ...TLS_DEFAULTS, ...tls }, handler),
    clientErrorHandler(error, socket) {
      // A peer that is gone asked for nothing: a probe of the port, a broken TLS handshake.
      if (socket.destroyed || ('code' in error && error.code === 'ECONNRESET')) {
        socket.destroy()
        return
      }
      const code = codeOf(error)
      onRefused(code, socket)
      if (socket.writable) socket.end(refusalResponse(code, random))
      else socket.destroy()
    },
    // A target that fastify's router cannot read.
    frameworkErrors: (_error, request, reply) =>
      void replyRefusal('target_not_canonical', request as FastifyRequest, reply as FastifyReply),
  })
  app.addHook('onRequest', (request, reply) =>
    replyRefusal(findObjection(request.raw) ?? 'upgrade_required', request, reply),
  )
  return app
}

function codeOf(error: Error & { code?: string }): Code {
  if (error.code === 'HPE_HEADER_OVERFLOW') return 'head_too_large'
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return 'handshake_timeout'
  return 'upgrade_malformed'
}
