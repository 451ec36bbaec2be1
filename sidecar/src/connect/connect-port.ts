/** The local port of `connect`: a loopback address or a Unix socket, with limits on what it holds. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { chmodSync, lstatSync, unlinkSync } from 'node:fs'
import { connect, type ListenOptions, type Socket } from 'node:net'
import { createAcceptErrorLog } from '../edge/accept-errors.ts'
import { HEADERS_MAX } from '../edge/upgrade.ts'
import type { Clock } from '../lib/clock.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import type { Log } from '../observe/log.ts'
import { CallLog } from './call-log.ts'
import { answerCode } from './codes.ts'
import { exchange } from './exchange.ts'
import { judgeRequest, type ExchangeRequest } from './guard.ts'
import type { Relay } from './relay.ts'
import { openStream, type StreamOptions } from './stream.ts'

export type Listen =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }

export type ConnectPortOptions = Pick<StreamOptions, 'target' | 'role'> & {
  readonly listen: Listen
  /** Whether the routes of session hosting are served. */
  readonly sessionHosting: boolean
  readonly clock: Clock
  readonly log: Log
}

/** Connections at once, open streams included. */
const CONNECTIONS_MAX = 256
/** Of them those without a request so far; one more displaces the oldest. */
const WAITING_MAX = 64
/** From the connection to the end of a request's head, in milliseconds. */
const HEAD_MS_MAX = 5000
/** For writing what is still due at the end, in milliseconds. */
const CLOSE_MS_MAX = 1000
/** The longest head of a request (line and headers together), in bytes. */
const HEAD_BYTES_MAX = 16 * 1024
/** Every process that can open the directory of a Unix socket may use it: the mount is the guard. */
const SOCKET_MODE = 0o666

export class ConnectPort {
  readonly #options: ConnectPortOptions
  readonly #server: Server
  readonly #calls: CallLog
  /** Connections without a request so far, oldest first, with what ends their timer. */
  readonly #waiting = new Map<Socket, () => void>()
  readonly #sockets = new Set<Socket>()
  readonly #relays = new Set<Relay>()

  constructor(options: ConnectPortOptions) {
    const { sessionHosting, log, clock } = options
    this.#options = options
    this.#calls = new CallLog(log, clock)
    this.#server = createServer({
      maxHeaderSize: HEAD_BYTES_MAX,
      // The guard answers a request without a Host, and the timers are ours.
      requireHostHeader: false,
      headersTimeout: 0,
      requestTimeout: 0,
      shouldUpgradeCallback: (request) => {
        const judgement = judgeRequest(request, sessionHosting)
        return judgement.ok && judgement.value.kind === 'stream'
      },
    })
    const server = this.#server
    server.maxConnections = CONNECTIONS_MAX
    // Node silently drops further headers; one more than the limit reveals that there are too many.
    server.maxHeadersCount = HEADERS_MAX + 1
    server.prependListener('connection', (socket) => this.#accept(socket))
    for (const event of ['request', 'checkContinue', 'checkExpectation']) {
      server.on(event, (request, response) => this.#serve(request, response))
    }
    server.on('upgrade', (request, socket: Socket, head) => void this.#open(request, socket, head))
    const onAcceptError = createAcceptErrorLog('workers', { clock, log })
    server.on('error', (error) => {
      // An error of `listen` rejects its promise.
      if (server.listening) onAcceptError(error)
    })
  }

  /** Resolves with where it listens: `host:port`, with the port the system chose, or `unix:path`. */
  async listen(): Promise<string> {
    const { listen } = this.#options
    if (listen.kind === 'unix') await removeStaleSocket(listen.path)
    await open(this.#server, listen.kind === 'unix' ? { path: listen.path } : listen)
    if (listen.kind === 'unix') {
      chmodSync(listen.path, SOCKET_MODE)
      return `unix:${listen.path}`
    }
    const address = this.#server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    return `${listen.host.includes(':') ? `[${listen.host}]` : listen.host}:${port}`
  }

  /** Stops listening and ends every connection in order; resolves when all are gone, or in a second. */
  async close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const cancel = this.#options.clock.after(CLOSE_MS_MAX, resolve)
    this.#server.close(() => resolve())
    for (const relay of this.#relays) relay.end()
    for (const socket of this.#waiting.keys()) socket.destroy()
    await promise
    cancel()
    for (const socket of this.#sockets) socket.destroy()
  }

  #accept(socket: Socket): void {
    const { clock } = this.#options
    socket.on('error', ignoreError)
    const [oldest] = this.#waiting.keys()
    if (this.#waiting.size >= WAITING_MAX) oldest?.destroy()
    const cancel = clock.after(HEAD_MS_MAX, () => socket.destroy())
    this.#waiting.set(socket, cancel)
    this.#sockets.add(socket)
    socket.once('close', () => {
      this.#settle(socket)
      this.#sockets.delete(socket)
    })
  }

  /** False where the connection had its request already: each serves one. */
  #settle(socket: Socket): boolean {
    this.#waiting.get(socket)?.()
    return this.#waiting.delete(socket)
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { sessionHosting } = this.#options
    response.on('error', ignoreError)
    request.on('error', ignoreError)
    if (!this.#settle(request.socket)) return void request.socket.destroy()
    const judgement = judgeRequest(request, sessionHosting)
    if (!judgement.ok) return answerCode(response, judgement.code)
    // An upgrade that Node did not take for one.
    if (judgement.value.kind === 'stream') return answerCode(response, 'upgrade_malformed')
    void this.#exchange(judgement.value, request, response)
  }

  async #exchange(
    accepted: ExchangeRequest,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const outcome = await exchange(accepted, request, response, this.#options)
    if (outcome !== undefined) this.#calls.note(outcome)
  }

  async #open(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const judgement = judgeRequest(request, this.#options.sessionHosting)
    if (!this.#settle(socket) || !judgement.ok || judgement.value.kind !== 'stream') {
      return void socket.destroy()
    }
    const upgrade = { request, socket, head, accepted: judgement.value }
    const { outcome, relay } = await openStream(upgrade, this.#options)
    if (outcome !== undefined) this.#calls.note(outcome)
    if (relay === undefined) return
    this.#relays.add(relay)
    await relay.closed
    this.#relays.delete(relay)
  }
}

function open(server: Server, options: ListenOptions): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(options, () => {
    server.off('error', reject)
    resolve()
  })
  return promise
}

/** A container that restarts finds the socket of its last life, at which nobody answers. */
async function removeStaleSocket(path: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const socket = connect({ path }, () => resolve(undefined)).on('error', (error) =>
    resolve('code' in error ? String(error.code) : undefined),
  )
  const code = await promise
  socket.destroy()
  // Any other error says that somebody is there: a full backlog, or a socket of another kind.
  if (code === 'ECONNREFUSED') unlinkSync(path)
}
