/** Sockets that have not proven anything yet: few per address, few in all, and none for long. */

import type { Socket } from 'node:net'
import type { Clock } from '../clock.ts'
import { normalizeAddress } from '../tunnel/address.ts'

export type PendingSocketsOptions = {
  readonly perAddressMax: number
  readonly inAllMax: number
  /** From the first byte of TCP to the admission, in milliseconds. */
  readonly handshakeTimeoutMs: number
  readonly clock: Clock
}

type Pending = {
  isProven: boolean
  readonly address: string
  readonly socket: Socket
  readonly cancel: () => void
  readonly onClose: () => void
  onTimeout: () => void
}

/** Peers are told apart by their address and port, which TLS does not hide. */
export class PendingSockets {
  readonly #options: PendingSocketsOptions
  readonly #pending = new Map<string, Pending>()
  readonly #countOf = new Map<string, number>()
  #proven = 0

  constructor(options: PendingSocketsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#pending.size
  }

  /**
   * Takes a socket in; false when there are too many, from its address or in all. `onTimeout` is
   * what happens when its time is up.
   */
  accept(socket: Socket, onTimeout: () => void): boolean {
    const { perAddressMax, inAllMax, handshakeTimeoutMs, clock } = this.#options
    const address = normalizeAddress(socket.remoteAddress) ?? ''
    const count = this.#countOf.get(address) ?? 0
    if (this.#pending.size - this.#proven >= inAllMax || count >= perAddressMax) return false
    const key = keyOf(socket)
    const older = this.#pending.get(key)
    if (older !== undefined) this.#remove(key, older)
    const pending: Pending = {
      isProven: false,
      address,
      socket,
      cancel: clock.after(handshakeTimeoutMs, () => pending.onTimeout()),
      onClose: () => this.#remove(key, pending),
      onTimeout,
    }
    this.#pending.set(key, pending)
    this.#countOf.set(address, count + 1)
    socket.on('close', pending.onClose)
    return true
  }

  /** Changes what happens when the time is up. */
  onTimeout(socket: Socket, run: () => void): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending !== undefined) pending.onTimeout = run
  }

  /**
   * The peer's token is one the cluster has signed: it no longer counts among all, since it counts
   * as a stream from here on. Its time still runs, and its address still has few.
   */
  prove(socket: Socket): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending === undefined || pending.isProven) return
    pending.isProven = true
    this.#proven += 1
  }

  /** The peer was let in: nothing of it is pending any more. */
  settle(socket: Socket): void {
    const key = keyOf(socket)
    const pending = this.#pending.get(key)
    if (pending !== undefined) this.#remove(key, pending)
  }

  /** As if everybody's time were up. */
  endAll(): void {
    for (const { onTimeout } of this.#pending.values()) onTimeout()
  }

  destroyAll(): void {
    for (const { socket } of this.#pending.values()) socket.destroy()
  }

  #remove(key: string, pending: Pending): void {
    // The same port may already belong to a newer socket.
    if (this.#pending.get(key) !== pending) return
    this.#pending.delete(key)
    if (pending.isProven) this.#proven -= 1
    pending.cancel()
    // As a listener of its socket it would live on, with all it holds.
    pending.socket.off('close', pending.onClose)
    const count = (this.#countOf.get(pending.address) ?? 1) - 1
    if (count === 0) this.#countOf.delete(pending.address)
    else this.#countOf.set(pending.address, count)
  }
}

const keyOf = (socket: Socket): string => `${socket.remoteAddress}|${socket.remotePort}`
