/** Reads what a gateway says into memory that is used over and over, instead of fresh memory each time. */

import type { OnReadOpts, Socket } from 'node:net'
import type { Duplex } from 'node:stream'

export type Feed = {
  /** Writes the first `size` bytes of `memory` to the sink, or does not want them. */
  take(memory: Buffer, size: number): void
  /** It holds on to what it was given while anything of it is queued. */
  readonly sink: Pick<Duplex, 'writableLength'>
}

/** Bytes one read may fetch: fewer and larger reads and writes cost less. */
const READ_BYTES = 256 * 1024
/** Reads up to this size are copied out of the shared buffer; a message of 16 KiB with its header fits. */
const COPY_BYTES = 20 * 1024
/** Sockets that may have read memory of their own, since they are fed much, at the same time. */
const OWN_MAX = 64
/** Small reads in a row after which a socket is at rest again. */
const SMALL_READS_MAX = 8

/**
 * The memory of all readers of a process. Sockets at rest share theirs, so that an idle one costs
 * nothing; nothing is ever written from it, since the next read of any of them overwrites it.
 */
export class ReadMemory {
  readonly shared = Buffer.allocUnsafeSlow(READ_BYTES)
  /** Where small reads are written from; another one takes its place while a write holds it. */
  copy = Buffer.allocUnsafeSlow(COPY_BYTES)
  #free: Buffer[] = []
  #lent = 0

  /** Memory for one socket alone; `undefined` when too much is lent. */
  lend(): Buffer | undefined {
    if (this.#lent >= OWN_MAX) return undefined
    this.#lent += 1
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES)
  }

  /** It is written and read no more. */
  take(memory: Buffer): void {
    this.#lent -= 1
    this.#free.push(memory)
  }

  /** Nobody can say when it is written: the collector will know. */
  forget(): void {
    this.#lent -= 1
  }

  renewCopy(): void {
    this.copy = Buffer.allocUnsafeSlow(COPY_BYTES)
  }
}

const processMemory = new ReadMemory()

export class GatewayReader {
  /** For `net.connect`, whose socket is then to be given to `attach`. */
  readonly onread: OnReadOpts
  readonly #memory: ReadMemory
  #socket: Socket | undefined
  #feed: Feed | undefined
  /** Where the next read goes, unless the socket is at rest. */
  #own: Buffer | undefined
  /** What a write of earlier bytes still holds. */
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

  /** From now on the feed gets what is read; until then it comes out of the socket, as a stream does. */
  start(feed: Feed): void {
    this.#feed = feed
  }

  /** The sink has written everything. */
  drained(): void {
    if (this.#held !== undefined) this.#memory.take(this.#held)
    this.#held = undefined
  }

  /** The socket is gone: nothing will be read. */
  stop(): void {
    if (this.#held !== undefined) this.#memory.forget()
    if (this.#own !== undefined) this.#memory.take(this.#own)
    this.#held = undefined
    this.#own = undefined
  }

  #read(memory: Buffer, size: number): boolean {
    const socket = this.#socket
    if (socket === undefined) throw new Error('a socket was read before it was attached')
    // What waits in the stream comes first.
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
    // A write that is sure to be queued is given no more memory than it needs.
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

/** A chunk of its own, as a socket without a reader would have it. */
function pushCopy(socket: Socket, memory: Buffer, size: number): boolean {
  const chunk = Buffer.allocUnsafeSlow(size)
  memory.copy(chunk, 0, 0, size)
  return socket.push(chunk)
}
