/** The admin port's connections: few in all and per address; idle ones make room for new ones. */

import type { Socket } from 'node:net'
import { ignoreError } from '../lib/peer-errors.ts'
import { normalizeAddress } from '../lib/address.ts'

/** A pair of Prometheus servers and the kubelet take three or four; nothing honest takes more. */
const CONNECTIONS_MAX = 64
/** The admin port may take this share of the descriptors; a worker's stream takes two. */
const DESCRIPTORS_SHARE = 1 / 16
const CONNECTIONS_MIN = 4

/** With few descriptors, few connections: idle ones must not keep workers out. */
export const adminConnectionsMax = (openFilesMax: number): number =>
  Math.max(CONNECTIONS_MIN, Math.min(CONNECTIONS_MAX, Math.floor(openFilesMax * DESCRIPTORS_SHARE)))

const EVENT_STREAMS_MAX = 4
/** The most connections, as a share, that event streams may hold: they never make room. */
const EVENT_STREAMS_SHARE = 1 / 4

/** How many of a port's connections may be event streams. */
export const eventStreamsMax = (connectionsMax: number): number =>
  Math.min(EVENT_STREAMS_MAX, Math.floor(connectionsMax * EVENT_STREAMS_SHARE))

export type AdminConnectionsOptions = {
  readonly max: number
  readonly perAddressMax: number
}

type Connection = {
  readonly address: string
  /** Whether a complete request waits for its answer. */
  isBusy: boolean
}

/**
 * A full port closes its oldest idle connection instead of refusing a new one: otherwise
 * connections that do nothing would keep probes out, and the kubelet would restart the sidecar.
 */
export class AdminConnections {
  readonly #options: AdminConnectionsOptions
  /** Oldest first. */
  readonly #open = new Map<Socket, Connection>()

  constructor(options: AdminConnectionsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#open.size
  }

  /** Accepts a connection, and closes an idle one if there are too many. */
  accept(socket: Socket): void {
    socket.on('error', ignoreError)
    const address = normalizeAddress(socket.remoteAddress) ?? ''
    if (!this.#makeRoom(address)) {
      socket.destroy()
      return
    }
    this.#open.set(socket, { address, isBusy: false })
    socket.once('close', () => this.#open.delete(socket))
  }

  /** Marks whether the connection waits for our answer; a busy one is not closed to make room. */
  setBusy(socket: Socket, isBusy: boolean): void {
    const connection = this.#open.get(socket)
    if (connection !== undefined) connection.isBusy = isBusy
  }

  #makeRoom(address: string): boolean {
    const { max, perAddressMax } = this.#options
    const ofAddress = [...this.#open].filter(([, connection]) => connection.address === address)
    if (ofAddress.length >= perAddressMax) return this.#closeIdle(ofAddress)
    return this.#open.size < max || this.#closeIdle([...this.#open])
  }

  #closeIdle(connections: readonly (readonly [Socket, Connection])[]): boolean {
    const idle = connections.find(([, { isBusy }]) => !isBusy)
    if (idle === undefined) return false
    this.#open.delete(idle[0])
    idle[0].destroy()
    return true
  }
}
