/** A stand-in gateway: it records handshakes, answers in a mode, and misbehaves on request. */

import type { AuthMode, Protocols } from './openclaw-connect.ts'
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { IncomingMessage, RequestListener } from 'node:http'
import { Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import websocket from '@fastify/websocket'
import type { WebSocket } from '@fastify/websocket'
import fastify from 'fastify'
import type { FastifyInstance } from 'fastify'
import { BehaviorPlan, UNATTRIBUTED, type Behavior, type BehaviorName } from './behavior.ts'
import { systemClock, type StubClock } from './clock.ts'
import { handleRawSocket, handleWebSocket } from './connection.ts'
import type { Arrival, StubConnection } from './connection.ts'
import { openEcho } from './dialogue.ts'
import { flood } from './flood.ts'
import { readHandshake } from './handshake.ts'
import type { Handshake } from './handshake.ts'
import { Journal } from './journal.ts'
import { isRaw, misbehave } from './misbehave.ts'
import { createPlainServer, HOSTING_PREFIX } from './plain-server.ts'
import { OpenClawSession } from './openclaw-session.ts'
import type { InvokeResult, Method, Pair } from './openclaw-session.ts'

export type GatewayStubOptions = {
  /** Default 127.0.0.1. */
  readonly host?: string
  /** Default 0: any free port. */
  readonly port?: number
  /** Default `echo`. */
  readonly mode?: 'echo' | 'openclaw'
  /** Default `accept`. */
  readonly behavior?: Behavior | BehaviorName
  /** The shared secret a `connect` must carry (openclaw mode). Without it none is asked for. */
  readonly token?: string
  /** What `token` is: default `token`; else a password, with `trusted-proxy` the owner's alone (openclaw mode). */
  readonly authMode?: AuthMode
  /** Accepted once each in place of `token`; the caller may add to the set at any time. */
  readonly bootstrapTokens?: Set<string>
  /** Answers to what an operator calls (openclaw mode). */
  readonly methods?: Readonly<Record<string, Method>>
  /** Has the last word on a valid `connect` (openclaw mode), as a pairing would. */
  readonly pair?: Pair
  /**
   * Members of a `connect` that it does not know, as `workerRuns` or `client.buildId`: it refuses
   * the whole frame for one of them, as an older gateway does. Default none.
   */
  readonly unknownFields?: readonly string[]
  /**
   * Whether forwarded headers are believed (openclaw mode); otherwise it refuses every upgrade that
   * has them, as without `trustedProxies`. Asked at each upgrade. Default true.
   */
  readonly isProxyTrusted?: () => boolean
  /** Default 4, and nodes from 3. */
  readonly protocols?: Protocols
  /** The largest message, reassembled. Default 26,214,400. */
  readonly messageBytesMax?: number
  /** Answers plain requests below `/__openclaw__/`; without it they get 404. */
  readonly serve?: RequestListener
  readonly clock?: StubClock
  /** Makes nonces, ids and device tokens. */
  readonly randomId?: () => string
  readonly onHandshake?: (handshake: Handshake) => void
}

type ReceivedMessage = {
  readonly connection: StubConnection
  readonly data: Buffer
  readonly isBinary: boolean
}

/** All ordinals count from 1 since the start; a wait without `ordinal` is for the next. */
export type GatewayStub = {
  readonly url: string
  readonly port: number
  /** The newest 10,000. */
  readonly handshakes: readonly Handshake[]
  /** The newest 10,000, and of them at most 64 MiB. */
  readonly received: readonly ReceivedMessage[]
  readonly receivedTotal: () => number
  /** Those open now. */
  readonly connections: ReadonlySet<StubConnection>
  /** For all connections that follow, or for the next `connections` only. */
  readonly setBehavior: (
    behavior: Behavior | BehaviorName,
    limit?: { readonly connections: number },
  ) => void
  readonly waitForHandshake: (ordinal?: number) => Promise<Handshake>
  readonly waitForConnection: (ordinal?: number) => Promise<StubConnection>
  readonly waitForMessage: (ordinal?: number) => Promise<ReceivedMessage>
  /** Sends a tick to every connection that said hello (openclaw mode). */
  readonly tick: () => void
  /** Resolves with the node's result; rejects after `timeoutMs` (default 15,000) without one. */
  readonly invoke: (
    connection: StubConnection,
    command: string,
    params: unknown,
    limit?: { readonly timeoutMs: number },
  ) => Promise<InvokeResult>
  /** Closes all connections with 1012 and the port. */
  readonly close: () => Promise<void>
}

const SOCKETS_MAX = 20_000
const ENTRIES_MAX = 10_000
const RECEIVED_BYTES_MAX = 67_108_864
const MESSAGE_BYTES_MAX = 26_214_400
const INVOKE_MS_MAX = 15_000

export async function startGatewayStub(options: GatewayStubOptions = {}): Promise<GatewayStub> {
  const stub = new Stub(options)
  const { host = '127.0.0.1', port = 0 } = options
  await stub.listen(host, port)
  return stub.face(host)
}

/** Waiting upgrades whose connection is about to be handled by the WebSocket server. */
type Upgrades = WeakMap<IncomingMessage, Arrival>

class Stub {
  readonly #options: GatewayStubOptions
  readonly #clock: StubClock
  readonly #plan: BehaviorPlan
  readonly #handshakes = new Journal<Handshake>({ entriesMax: ENTRIES_MAX })
  readonly #opened = new Journal<StubConnection>({ entriesMax: ENTRIES_MAX })
  readonly #received = new Journal<ReceivedMessage>({
    entriesMax: ENTRIES_MAX,
    weightMax: RECEIVED_BYTES_MAX,
    weigh: ({ data }) => data.length,
  })
  readonly #sockets = new Set<Socket>()
  readonly #connections = new Set<StubConnection>()
  readonly #sessions = new Map<StubConnection, OpenClawSession>()
  readonly #upgrades: Upgrades = new WeakMap()
  /** Never listens: it only hands the upgrades that are to succeed on to the WebSocket server. */
  readonly #acceptor = createServer()
  readonly #app: FastifyInstance

  constructor(options: GatewayStubOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#plan = new BehaviorPlan(options.behavior ?? 'accept')
    this.#app = fastify({
      forceCloseConnections: true,
      serverFactory: (handler) => createPlainServer(handler, options.serve),
    })
  }

  async listen(host: string, port: number): Promise<void> {
    const app = this.#app
    await app.register(websocket, {
      options: {
        server: this.#acceptor,
        maxPayload: this.#options.messageBytesMax ?? MESSAGE_BYTES_MAX,
        perMessageDeflate: false,
        handleProtocols: (offered, request) => this.#chooseProtocol(offered, request),
      },
      // The default would cut the socket off before its close frame, such as a 1009, is out.
      errorHandler() {},
      preClose: (done) => done(),
    })
    for (const path of ['/healthz', '/health', '/readyz', '/ready', '/startupz']) {
      app.get(path, () => ({ ok: true }))
    }
    app.get('/*', { websocket: true }, (ws, { raw }) => this.#converse(ws, raw))
    app.server.maxConnections = SOCKETS_MAX
    app.server.on('connection', (socket: Socket) => this.#track(socket))
    app.server.on('upgrade', (request, socket, head) => {
      // A Duplex by type, but of this plain TCP server always a socket.
      if (socket instanceof Socket) this.#upgrade(request, socket, head)
    })
    await app.listen({ host, port })
  }

  face(host: string): GatewayStub {
    const { port } = this.#app.server.address() as AddressInfo
    return {
      url: `ws://${host.includes(':') ? `[${host}]` : host}:${port}`,
      port,
      handshakes: this.#handshakes.entries,
      received: this.#received.entries,
      receivedTotal: () => this.#received.total,
      connections: this.#connections,
      setBehavior: (behavior, limit) => this.#plan.set(behavior, limit?.connections),
      waitForHandshake: (ordinal) => this.#handshakes.wait(ordinal),
      waitForConnection: (ordinal) => this.#opened.wait(ordinal),
      waitForMessage: (ordinal) => this.#received.wait(ordinal),
      tick: () => this.#sessions.forEach((session) => session.tick()),
      invoke: (connection, command, params, limit) => {
        const session = this.#sessions.get(connection)
        if (session === undefined)
          return Promise.reject(new Error('not a live OpenClaw connection'))
        return session.invoke(command, params, limit?.timeoutMs ?? INVOKE_MS_MAX)
      },
      close: () => this.#close(),
    }
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
  }

  #upgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    // A peer can reset at any moment; the `close` event that follows says everything.
    socket.on('error', () => {})
    const planned = this.#plan.take()
    const handshake = readHandshake(request, this.#handshakes.total + 1, this.#clock.now())
    const behavior = this.#isAttributed(handshake) ? planned : UNATTRIBUTED
    const arrival = { socket, handshake, behavior }
    this.#handshakes.add(handshake)
    this.#options.onHandshake?.(handshake)
    if (!isRaw(behavior)) {
      this.#upgrades.set(request, arrival)
      this.#acceptor.emit('upgrade', request, socket, head)
      return
    }
    this.#open(handleRawSocket(arrival))
    misbehave(behavior, socket, handshake)
  }

  #isAttributed({ headers }: Handshake): boolean {
    const { isProxyTrusted = () => true } = this.#options
    return headers['x-forwarded-for'] === undefined || isProxyTrusted()
  }

  #chooseProtocol(offered: ReadonlySet<string>, request: IncomingMessage): string | false {
    if (this.#upgrades.get(request)?.behavior.kind !== 'subprotocol') return false
    return offered.values().next().value ?? false
  }

  #open(connection: StubConnection): void {
    this.#connections.add(connection)
    this.#opened.add(connection)
    void connection.closed.then(() => this.#connections.delete(connection))
  }

  #converse(ws: WebSocket, request: IncomingMessage): void {
    const arrival = this.#upgrades.get(request)
    if (arrival === undefined) return ws.terminate()
    const { behavior } = arrival
    const connection = handleWebSocket(ws, arrival)
    const dialogue = this.#openDialogue(connection, () => {
      if (behavior.kind === 'flood') flood(ws, behavior)
    })
    let messages = 0
    // With the default `binaryType` a message always arrives as one Buffer.
    ws.on('message', (data: Buffer, isBinary: boolean) => {
      messages += 1
      this.#received.add({ connection, data, isBinary })
      dialogue.receive(data, isBinary)
      leaveAfter(connection, messages)
    })
    ws.once('close', () => {
      dialogue.end()
      this.#sessions.delete(connection)
    })
    if (behavior.kind === 'silent') connection.pause()
    this.#open(connection)
    leaveAfter(connection, messages)
  }

  #openDialogue(connection: StubConnection, onReady: () => void) {
    const { path } = connection.handshake
    if ((this.#options.mode ?? 'echo') === 'echo' || path.startsWith(HOSTING_PREFIX)) {
      onReady()
      return openEcho(connection)
    }
    const session = new OpenClawSession(connection, {
      bootstrapTokens: new Set(),
      methods: {},
      unknownFields: [],
      messageBytesMax: MESSAGE_BYTES_MAX,
      randomId: randomUUID,
      ...this.#options,
      clock: this.#clock,
      onReady,
    })
    this.#sessions.set(connection, session)
    return session
  }

  async #close(): Promise<void> {
    const over = new Error('the gateway stub is closed')
    for (const journal of [this.#handshakes, this.#opened, this.#received]) journal.end(over)
    for (const { behavior, close } of this.#connections) {
      if (!isRaw(behavior)) close(1012, 'service restart')
    }
    for (const socket of this.#sockets) {
      // What the kernel has taken is delivered; a reader that takes nothing must not delay us.
      if (socket.writableLength > 0) socket.destroy()
      else socket.destroySoon()
    }
    await this.#app.close()
  }
}

/** Leaves once as many messages have arrived as the behavior says. */
function leaveAfter({ behavior, close, terminate }: StubConnection, messages: number): void {
  if (behavior.kind !== 'close' && behavior.kind !== 'drop') return
  if (messages !== (behavior.afterMessages ?? 0)) return
  if (behavior.kind === 'close') close(behavior.code, behavior.reason)
  else terminate()
}
