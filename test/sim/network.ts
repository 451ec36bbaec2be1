/** A network in memory: it delays, splits, holds back, loses and cuts, as a seed says. */

import type { NetConnectOpts, TcpNetConnectOpts } from 'node:net'

import type { Network } from '@openclaw-k8s/auth-sidecar/lib/network.ts'
import type { FakeClock } from '../kit/fake-clock.ts'
import type { SeededRandom } from '../kit/soak.ts'
import { offerTo } from './listeners.ts'
import { joinSockets, SimSocket, type Wire } from './socket.ts'

/** Who is called: the worker port, the API server, the gateway, or the admin port. */
export type Peer = 'workers' | 'admin' | 'api' | 'gateway'

export type Connection = Wire & { readonly peer: Peer; readonly from: string }

export type SimNetworkOptions = {
  readonly clock: FakeClock
  readonly random: SeededRandom
}

/** The host of everything but the workers: one pod. */
const SIDECAR_ADDRESS = '10.0.0.2'
const CONNECT_TIMEOUT_MS = 10_000

const ignoreError = (): void => {}

export class SimNetwork implements Network {
  readonly #clock: FakeClock
  readonly #random: SeededRandom
  readonly #peers = new Map<number, Peer>()
  readonly #connections = new Set<Connection>()
  readonly #dialed = new Map<number, Connection>()
  readonly #held = new Set<Peer>()
  readonly #lost = new Set<Peer>()
  readonly #refusing = new Set<Peer>()
  /** The longest delay of a segment to or from each peer, in milliseconds. */
  readonly #delays = new Map<Peer, number>()
  /** The share of connections to each peer that are reset after some bytes. */
  readonly #cuts = new Map<Peer, number>()
  #ports = 40_000
  /** Grows with whatever moves: the simulation waits until it stands still. */
  activity = 0

  constructor({ clock, random }: SimNetworkOptions) {
    this.#clock = clock
    this.#random = random
  }

  get connections(): ReadonlySet<Connection> {
    return this.#connections
  }

  name(port: number, peer: Peer): void {
    this.#peers.set(port, peer)
  }

  readonly connect = (options: NetConnectOpts): SimSocket =>
    this.dial(options as TcpNetConnectOpts, SIDECAR_ADDRESS)

  /** As undici's, but without TLS. */
  readonly buildConnector: Network['buildConnector'] =
    ({ timeout } = {}) =>
    ({ hostname, port }, callback) => {
      const socket = this.connect({ host: hostname, port: Number(port) })
      const limitMs = timeout ?? CONNECT_TIMEOUT_MS
      const cancel = this.#clock.after(limitMs, () =>
        socket.destroy(new Error(`no connection within ${limitMs} ms`)),
      )
      const settle = (error: Error | null) => {
        cancel()
        socket.off('connect', onConnect).off('error', settle)
        if (error === null) callback(null, socket)
        else callback(error, null)
      }
      const onConnect = () => settle(null)
      socket.once('connect', onConnect).once('error', settle)
    }

  dial(options: TcpNetConnectOpts, from: string): SimSocket {
    const peer = this.#peers.get(options.port)
    if (peer === undefined) throw new Error(`nobody is known at port ${options.port}`)
    const localPort = (this.#ports += 1)
    const to = peer === 'workers' || peer === 'admin' ? SIDECAR_ADDRESS : '10.0.0.1'
    const client = new SimSocket(
      { allowHalfOpen: options.allowHalfOpen === true, onread: options.onread },
      { localAddress: from, localPort, remoteAddress: to, remotePort: options.port },
    )
    client.beginConnecting()
    const server = new SimSocket(
      { allowHalfOpen: true },
      { localAddress: to, localPort: options.port, remoteAddress: from, remotePort: localPort },
    )
    const wire = joinSockets(client, server, {
      clock: this.#clock,
      plan: (size) => this.#plan(peer, size),
      isHeld: () => this.#held.has(peer),
      cutAfter: this.#chance(this.#cuts.get(peer) ?? 0) ? this.#below(4000) : Infinity,
      onMoved: () => (this.activity += 1),
    })
    const connection: Connection = Object.assign(wire, { peer, from })
    this.#connections.add(connection)
    this.#dialed.set(localPort, connection)
    client.once('close', () => {
      this.#dialed.delete(localPort)
      if (server.destroyed) this.#connections.delete(connection)
    })
    server.once('close', () => {
      if (client.destroyed) this.#connections.delete(connection)
    })
    // Nobody has it yet who could listen; the server that accepts it must.
    server.on('error', ignoreError)
    this.#open(connection, client, server, options.port)
    return client
  }

  /** Bytes and connections to and from a peer wait until it is released. */
  hold(peer: Peer): void {
    this.#held.add(peer)
  }

  release(peer: Peer): void {
    this.#held.delete(peer)
    for (const connection of this.#connections) if (connection.peer === peer) connection.resume()
  }

  /** The connections there are to a peer carry nothing any more, and nobody is told. */
  forget(peer: Peer): void {
    for (const connection of this.#connections) if (connection.peer === peer) connection.lose()
  }

  /** Nothing answers at a peer, new connections included, until `find`. */
  vanish(peer: Peer): void {
    this.#lost.add(peer)
    this.forget(peer)
  }

  find(peer: Peer): void {
    this.#lost.delete(peer)
  }

  /** Nothing listens at a peer, and its connections are reset, until `start`. */
  stop(peer: Peer): void {
    this.#refusing.add(peer)
    this.reset(peer)
  }

  start(peer: Peer): void {
    this.#refusing.delete(peer)
  }

  setDelay(peer: Peer, ms: number): void {
    this.#delays.set(peer, ms)
  }

  setCuts(peer: Peer, share: number): void {
    this.#cuts.set(peer, share)
  }

  /** Resets the connections to a peer, or some of them. */
  reset(peer: Peer, share = 1): void {
    for (const connection of this.#connections) {
      if (connection.peer === peer && this.#chance(share)) connection.reset()
    }
  }

  /** One end of a connection to a peer says that it has said everything, and goes on listening. */
  halfClose(peer: Peer, which: number, isClient: boolean): void {
    const open = [...this.#connections].filter((each) => each.peer === peer)
    const connection = open[Math.floor(which * open.length)]
    if (connection !== undefined) (isClient ? connection.client : connection.server).end()
  }

  /** The connection whose accepted end this is. */
  findByServer(server: unknown): Connection | undefined {
    for (const connection of this.#connections) {
      if (connection.server === server) return connection
    }
    return undefined
  }

  /** Whether the end of the connection that was dialed from this port is open. */
  isDialOpen(port: number): boolean {
    return this.#dialed.get(port)?.client.destroyed === false
  }

  /** Everything is as on a good day again; what was lost stays lost. */
  heal(): void {
    for (const peer of ['workers', 'admin', 'api', 'gateway'] as const) {
      this.find(peer)
      this.start(peer)
      this.release(peer)
    }
    this.#delays.clear()
    this.#cuts.clear()
  }

  #open(connection: Connection, client: SimSocket, server: SimSocket, port: number): void {
    const arrive = () => {
      if (client.destroyed || this.#lost.has(connection.peer)) return void server.destroy()
      if (this.#held.has(connection.peer)) return void this.#clock.after(200, arrive)
      this.activity += 1
      const isAccepted = !this.#refusing.has(connection.peer) && offerTo(port, server)
      server.off('error', ignoreError)
      if (!isAccepted) {
        this.#connections.delete(connection)
        server.destroy()
        client.destroy(Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }))
        return
      }
      client.connected()
    }
    this.#clock.after(1 + this.#delay(connection.peer), arrive)
  }

  /** How a write travels: pieces, and how long each takes. */
  #plan(peer: Peer, size: number): readonly (readonly [bytes: number, delayMs: number])[] {
    if (size < 2 || !this.#chance(0.15)) return [[size, this.#delay(peer)]]
    const first = 1 + this.#below(size - 1)
    return [
      [first, this.#delay(peer)],
      [size - first, this.#delay(peer)],
    ]
  }

  #delay(peer: Peer): number {
    const most = this.#delays.get(peer) ?? 2
    return Math.floor(this.#random.next() * (most + 1))
  }

  #below(most: number): number {
    return Math.floor(this.#random.next() * most)
  }

  #chance(share: number): boolean {
    return share > 0 && this.#random.next() < share
  }
}
