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

/** Why a pending socket has to go: its time is up, or another address needs its place. */
export type PendingEnd = 'timeout' | 'displaced'

export type PendingListeners = {
  readonly onEnd: (why: PendingEnd) => void
  /** The peer has sent something and left before anybody answered it. */
  readonly onLeft: () => void
}

/** Only `waiting` sockets take the places of `inAllMax`; displaced ones are on their way out. */
type State = 'waiting' | 'proven' | 'displaced'

type Pending = {
  state: State
  isAnswered: boolean
  readonly key: string
  readonly group: string
  readonly socket: Socket
  readonly cancel: () => void
  readonly onClose: () => void
  onEnd: (why: PendingEnd) => void
}

/**
 * A socket is identified by the addresses and ports of both its ends: over TLS the accepted socket
 * and the one that carries the request are different objects with the same ends.
 */
export class PendingSockets {
  readonly #options: PendingSocketsOptions
  readonly #pending = new Map<string, Pending>()
  readonly #tally = new Tally()
  /** The waiting sockets, oldest first, by the key their address counts under. */
  readonly #waiting = new Map<string, Set<Pending>>()
  readonly #counts: Record<State, number> = { waiting: 0, proven: 0, displaced: 0 }

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

  /**
   * Takes a socket in; false when there are too many, from its address or in all. Where all places
   * are taken, an address with few sockets displaces one of the address with the most: strangers
   * cannot keep a worker out unless they have as many addresses as there are places.
   */
  accept(socket: Socket, { onEnd, onLeft }: PendingListeners): boolean {
    const { perAddressMax, inAllMax, handshakeTimeoutMs, clock, groupOf } = this.#options
    const key = keyOf(socket)
    // The kernel may reuse the same ends before we hear that the older socket closed.
    this.#pending.get(key)?.onClose()
    const group = groupOf(normalizeAddress(socket.remoteAddress) ?? '')
    if (this.#tally.of(group) >= perAddressMax) return false
    if (this.#counts.waiting >= inAllMax && !this.#displaceFor(group)) return false
    const pending: Pending = {
      state: 'waiting',
      isAnswered: false,
      key,
      group,
      socket,
      cancel: clock.after(handshakeTimeoutMs, () => pending.onEnd('timeout')),
      onClose: () => {
        this.#remove(pending)
        if (!pending.isAnswered && socket.bytesRead > 0) onLeft()
      },
      onEnd,
    }
    this.#pending.set(key, pending)
    this.#tally.add(group)
    this.#waiting.set(group, (this.#waiting.get(group) ?? new Set()).add(pending))
    this.#counts.waiting += 1
    socket.on('close', pending.onClose)
    return true
  }

  /** Someone has taken the peer's request: they answer it, and record when the peer leaves. */
  answer(socket: Socket): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending !== undefined) pending.isAnswered = true
  }

  /** Changes what happens when the socket has to go. */
  onEnd(socket: Socket, run: (why: PendingEnd) => void): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending !== undefined) pending.onEnd = run
  }

  /**
   * The cluster has signed the peer's token. From here on it counts against `limits.streams`, not
   * `limits.pending`. The handshake timeout and the per-address limit still apply.
   */
  prove(socket: Socket): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending?.state === 'waiting') this.#leaveWaiting(pending, 'proven')
  }

  /** The peer was admitted: its socket is no longer pending. */
  settle(socket: Socket): void {
    const pending = this.#pending.get(keyOf(socket))
    if (pending !== undefined) this.#remove(pending)
  }

  /** As if every pending socket timed out. */
  endAll(): void {
    for (const { state, onEnd } of this.#pending.values()) {
      if (state !== 'displaced') onEnd('timeout')
    }
  }

  destroyAll(): void {
    for (const { socket } of this.#pending.values()) socket.destroy()
  }

  /**
   * Displaces only for an address that stays below the other one: otherwise two addresses could
   * displace each other in turn. A displaced socket counts for its address until it is closed, and
   * no more of them may be on their way out than there are places.
   */
  #displaceFor(group: string): boolean {
    let most: ReadonlySet<Pending> = new Set()
    for (const sockets of this.#waiting.values()) if (sockets.size > most.size) most = sockets
    const [oldest] = most
    const isBelow = (this.#waiting.get(group)?.size ?? 0) + 1 < most.size
    const isExitFull = this.#counts.displaced >= this.#options.inAllMax
    if (oldest === undefined || !isBelow || isExitFull) return false
    this.#leaveWaiting(oldest, 'displaced')
    oldest.cancel()
    oldest.onEnd('displaced')
    return true
  }

  #leaveWaiting(pending: Pending, state: 'proven' | 'displaced'): void {
    this.#uncount(pending)
    pending.state = state
    this.#counts[state] += 1
  }

  #uncount(pending: Pending): void {
    this.#counts[pending.state] -= 1
    const sockets = this.#waiting.get(pending.group)
    sockets?.delete(pending)
    if (sockets?.size === 0) this.#waiting.delete(pending.group)
  }

  #remove(pending: Pending): void {
    // The same ends may already belong to a newer socket.
    if (this.#pending.get(pending.key) !== pending) return
    this.#pending.delete(pending.key)
    this.#uncount(pending)
    pending.cancel()
    // As a listener of its socket it would stay in memory, with all it references.
    pending.socket.off('close', pending.onClose)
    this.#tally.remove(pending.group)
  }
}

const keyOf = ({ remoteAddress, remotePort, localAddress, localPort }: Socket): string =>
  `${remoteAddress}|${remotePort}|${localAddress}|${localPort}`
