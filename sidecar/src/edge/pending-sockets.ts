/** Sockets without proof so far: few per address, few in all, and none for long. */

import type { Socket } from 'node:net'
import type { Clock } from '../lib/clock.ts'
import { Tally } from '../lib/tally.ts'
import { normalizeAddress } from '../lib/address.ts'

export type PendingSocketsOptions = {
  readonly perAddressMax: number
  readonly inAllMax: number
  /** From the TCP connection to the admission, in milliseconds. */
  readonly handshakeTimeoutMs: number
  readonly clock: Clock
  /** The key an address counts under. */
  readonly groupOf: (address: string) => string
}

export type PendingListeners = {
  /** The handshake timed out. */
  readonly onTimeout: () => void
  /** The peer sent something and left before anyone answered it. */
  readonly onLeft: () => void
}

type Pending = {
  isProven: boolean
  isAnswered: boolean
  readonly group: string
  readonly socket: Socket
  readonly cancel: () => void
  readonly onClose: () => void
  onTimeout: () => void
}

/**
 * A socket is identified by the addresses and ports of both its ends: over TLS the accepted socket
 * and the one that carries the request are different objects with the same ends.
 */
export class PendingSockets {
  readonly #options: PendingSocketsOptions
  readonly #pending = new Map<string, Pending>()
  readonly #tally = new Tally()
  #proven = 0

  constructor(options: PendingSocketsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#pending.size
  }

  /** Addresses that have a pending socket; an IPv6 network counts as one. */
  get addressCount(): number {
    return this.#tally.size
  }

  /** Accepts a socket; false when there are too many, from its address or in all. */
  accept(socket: Socket, { onTimeout, onLeft }: PendingListeners): boolean {
    const { perAddressMax, inAllMax, handshakeTimeoutMs, clock, groupOf } = this.#options
    const key = keyOf(socket)
    // The kernel may reuse the same ends before we hear that the older socket closed.
    this.#pending.get(key)?.onClose()
    const group = groupOf(normalizeAddress(socket.remoteAddress) ?? '')
    if (this.#pending.size - this.#proven >= inAllMax) return false
    if (this.#tally.of(group) >= perAddressMax) return false
    const pending: Pending = {
      isProven: false,
      isAnswered: false,
      group,
      socket,
      cancel: clock.after(handshakeTimeoutMs, () => pending.onTimeout()),
      onClose: () => {
        this.#remove(key, pending)
        if (!pending.isAnswered && socket.bytesRead > 0) onLeft()
      },
      onTimeout,
    }
    this.#pending.set(key, pending)
    this.#tally.add(group)
    socket.on('close', pending.onClose)
    return true
  }

  /** Someone has taken the peer's request: they answer it, and record when the peer leaves. */
  answer(socket: Socket): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending !== undefined) pending.isAnswered = true
  }

  /** Changes what happens at the timeout. */
  onTimeout(socket: Socket, run: () => void): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending !== undefined) pending.onTimeout = run
  }

  /**
   * The cluster has signed the peer's token. From here on it counts against `limits.streams`, not
   * `limits.pending`. The handshake timeout and the per-address limit still apply.
   */
  prove(socket: Socket): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending === undefined || pending.isProven) return
    pending.isProven = true
    this.#proven += 1
  }

  /** The peer was admitted: its socket is no longer pending. */
  settle(socket: Socket): void {
    const key = keyOf(socket)
    const pending = this.#pending.get(key)
    if (pending !== undefined) this.#remove(key, pending)
  }

  /** As if every pending socket timed out. */
  endAll(): void {
    for (const { onTimeout } of this.#pending.values()) onTimeout()
  }

  destroyAll(): void {
    for (const { socket } of this.#pending.values()) socket.destroy()
  }

  #remove(key: string, pending: Pending): void {
    // The same ends may already belong to a newer socket.
    if (this.#pending.get(key) !== pending) return
    this.#pending.delete(key)
    if (pending.isProven) this.#proven -= 1
    pending.cancel()
    // As a listener of its socket it would stay in memory, with all it references.
    pending.socket.off('close', pending.onClose)
    this.#tally.remove(pending.group)
  }
}

const keyOf = ({ remoteAddress, remotePort, localAddress, localPort }: Socket): string =>
  `${remoteAddress}|${remotePort}|${localAddress}|${localPort}`
