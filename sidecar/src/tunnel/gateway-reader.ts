/** Reads what a gateway sends into reused memory, instead of new memory for each read. */

import type { OnReadOpts, Socket } from 'node:net'
import type { Duplex } from 'node:stream'

export type Feed = {
  /** Writes the first `size` bytes of `memory` to the sink, or discards them. */
  take(memory: Buffer, size: number): void
  /** It keeps a reference to what it was given while any of it is queued. */
  readonly sink: Pick<Duplex, 'writableLength'>
}

/** Bytes one read may fetch: fewer and larger reads and writes cost less. */
const READ_BYTES = 256 * 1024
/** Reads up to this size are copied out of the shared buffer; a message of 16 KiB with its header fits. */
const COPY_BYTES = 20 * 1024
/** Sockets that may have their own memory at the same time, because they receive much. */
const OWN_MAX = 64
/** Small reads in a row after which a socket is at rest again. */
const SMALL_READS_MAX = 8

/**
 * The memory of all readers of a process. Sockets at rest share one buffer, so that an idle one
 * costs nothing. Nothing is ever written from it, since the next read of any of them overwrites it.
 */
export class ReadMemory {
  readonly shared = Buffer.allocUnsafeSlow(READ_BYTES)
  /** Small reads are written from here. It is replaced when a write still holds it. */
  copy = Buffer.allocUnsafeSlow(COPY_BYTES)
  #free: Buffer[] = []
  #lent = 0

  /** Memory for one socket alone; `undefined` when too many sockets have some. */
  lend(): Buffer | undefined {
    if (this.#lent >= OWN_MAX) return undefined
    this.#lent += 1
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES)
  }

  /** Takes back memory that is no longer read or written. */
  take(memory: Buffer): void {
    this.#lent -= 1
    this.#free.push(memory)
  }

  /** For memory whose write may still be under way: the garbage collector will free it. */
  forget(): void {
    this.#lent -= 1
  }

  renewCopy(): void {
    this.copy = Buffer.allocUnsafeSlow(COPY_BYTES)
  }
}

const processMemory = new ReadMemory()

/**
 * The states of a reader. A read is small up to `COPY_BYTES`. While bytes wait in the socket's
 * stream, every read follows them as a new chunk, in every state.
 *
 *     state     reads into          writes from                  leaves it when
 *     no feed   `shared`            a new chunk, in the stream   `start`: at rest
 *     at rest   `shared`            `copy` for a small read to   a read is not small and `lend`
 *                                   an empty sink, otherwise     has memory: fed much
 *                                   a new chunk, in the stream
 *     fed much  `#own`              `#own` itself                the sink queues it: held
 *                                                                8 small reads in a row, sink
 *                                                                empty: at rest, `#own` goes back
 *     held      a second `#own`,    as fed much, or as at rest   the sink drains: `#held` goes back
 *               or `shared` when    without an `#own`            a second write is queued:
 *               `lend` has no more                               `#held` is left to the collector
 */
export class GatewayReader {
  /** For `net.connect`; its socket must then be passed to `attach`. */
  readonly onread: OnReadOpts
  readonly #memory: ReadMemory
  #socket: Socket | undefined
  #feed: Feed | undefined
  /** Where the next read goes; `undefined` while the socket is at rest. */
  #own: Buffer | undefined
  /** Memory that an earlier write still holds. */
  #held: Buffer | undefined
  #smallReads = 0

  constructor(memory = processMemory) {
    this.#memory = memory
    this.onread = {
      buffer: () => this.#own ?? this.#memory.shared,
      callback: (size, into) => this.#read(into as Buffer, size),
    }
  }

  attach(socket: Socket): void {
    this.#socket = socket
  }

  /** From now on the feed gets what is read; until then the socket emits it, as any stream does. */
  start(feed: Feed): void {
    this.#feed = feed
  }

  /** The sink has written everything. */
  drained(): void {
    if (this.#held !== undefined) this.#memory.take(this.#held)
    this.#held = undefined
  }

  /** The socket is gone: there are no more reads. */
  stop(): void {
    if (this.#held !== undefined) this.#memory.forget()
    if (this.#own !== undefined) this.#memory.take(this.#own)
    this.#held = undefined
    this.#own = undefined
  }

  #read(memory: Buffer, size: number): boolean {
    const socket = this.#socket
    if (socket === undefined) throw new Error('a socket was read before it was attached')
    // Bytes that wait in the stream come first.
    if (this.#feed === undefined || socket.readableLength > 0) return pushCopy(socket, memory, size)
    if (memory !== this.#memory.shared) {
      this.#feedOwn(this.#feed, memory, size)
      return true
    }
    const isMuch = size > COPY_BYTES
    if (isMuch) {
      this.#own = this.#memory.lend()
      this.#smallReads = 0
    }
    // The sink would queue this write, so it gets only as much memory as it needs.
    if (isMuch || this.#feed.sink.writableLength > 0) return pushCopy(socket, memory, size)
    this.#feedCopy(this.#feed, memory, size)
    return true
  }

  #feedOwn(feed: Feed, memory: Buffer, size: number): void {
    this.#smallReads = size <= COPY_BYTES ? this.#smallReads + 1 : 0
    feed.take(memory, size)
    if (feed.sink.writableLength > 0) {
      if (this.#held !== undefined) this.#memory.forget()
      this.#held = memory
      this.#own = this.#memory.lend()
    } else if (this.#smallReads >= SMALL_READS_MAX) {
      this.#memory.take(memory)
      this.#own = undefined
    }
  }

  #feedCopy(feed: Feed, memory: Buffer, size: number): void {
    memory.copy(this.#memory.copy, 0, 0, size)
    feed.take(this.#memory.copy, size)
    if (feed.sink.writableLength > 0) this.#memory.renewCopy()
  }
}

/** A new chunk of exactly this size, as a socket without a reader would emit it. */
function pushCopy(socket: Socket, memory: Buffer, size: number): boolean {
  const chunk = Buffer.allocUnsafeSlow(size)
  memory.copy(chunk, 0, 0, size)
  return socket.push(chunk)
}
