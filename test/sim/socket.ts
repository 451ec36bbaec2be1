/** The two ends of a simulated connection: Node's `Socket`, with a wire of this process under it. */

import { Socket, type OnReadOpts } from 'node:net'
import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'

type Addresses = {
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
}

type SimSocketOptions = {
  readonly allowHalfOpen: boolean
  readonly onread?: OnReadOpts | undefined
}

type Done = (error?: Error | null) => void

const resetError = () => Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })

/** Does what a kernel's socket does, as far as Node shows it. */
export class SimSocket extends Socket {
  readonly #onread: OnReadOpts | undefined
  readonly #addresses: Addresses
  #out: Link | undefined
  #in: Link | undefined
  #isFull = false
  #isPaused = false
  #received = 0
  #sent = 0

  constructor({ allowHalfOpen, onread }: SimSocketOptions, addresses: Addresses) {
    super({ allowHalfOpen })
    this.#onread = onread
    this.#addresses = addresses
  }

  // Of the class, as Node's own: properties of each socket would make every access to one slow.
  static {
    const define = (name: keyof Socket, get: (socket: SimSocket) => unknown) =>
      Object.defineProperty(SimSocket.prototype, name, {
        get(this: SimSocket) {
          return get(this)
        },
      })
    define('bytesRead', (socket) => socket.#received)
    define('bytesWritten', (socket) => socket.#sent)
    define('localAddress', (socket) => socket.#addresses.localAddress)
    define('localPort', (socket) => socket.#addresses.localPort)
    define('remoteAddress', (socket) => socket.#addresses.remoteAddress)
    define('remotePort', (socket) => socket.#addresses.remotePort)
  }

  join(out: Link, into: Link): void {
    this.#out = out
    this.#in = into
  }

  beginConnecting(): void {
    Object.assign(this, { connecting: true })
  }

  /** The other end has accepted the connection. */
  connected(): void {
    Object.assign(this, { connecting: false })
    this.emit('connect')
    this.emit('ready')
  }

  get isReadable(): boolean {
    return !this.#isFull && !this.#isPaused && !this.destroyed
  }

  /** Bytes arrive. */
  receive(bytes: Buffer): void {
    this.#received += bytes.length
    if (this.#onread === undefined) {
      this.#isFull = !this.push(bytes)
      return
    }
    for (let at = 0; at < bytes.length;) {
      const onread = this.#onread
      const { buffer } = onread
      const into = (typeof buffer === 'function' ? buffer() : buffer) as Buffer
      const size = bytes.copy(into, 0, at)
      at += size
      // As Node: reading stops after this one.
      if (!onread.callback(size, into)) this.#isFull = true
    }
  }

  receiveEnd(): void {
    this.push(null)
    this.read(0)
  }

  override pause(): this {
    if (this.#onread !== undefined) this.#isPaused = true
    return super.pause()
  }

  override resume(): this {
    this.#wake()
    return super.resume()
  }

  override _read(): void {
    this.#wake()
  }

  override _write(chunk: Buffer | string, encoding: BufferEncoding, done: Done): void {
    // A copy: the sidecar uses memory again once it is written.
    this.#send(typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk), done)
  }

  override _writev(
    chunks: readonly { readonly chunk: Buffer | string; readonly encoding: BufferEncoding }[],
    done: Done,
  ): void {
    const bytes = chunks.map(({ chunk, encoding }) =>
      typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk,
    )
    this.#send(Buffer.concat(bytes), done)
  }

  override _final(done: Done): void {
    this.#whenConnected(() => {
      this.#out?.end()
      done()
    })
  }

  override _destroy(error: Error | null, done: Done): void {
    const isUnread = this.readableLength > 0 || (this.#in?.hasArrived ?? false)
    if (isUnread) this.#out?.reset()
    else this.#out?.end()
    this.#in?.refuse()
    Object.assign(this, { connecting: false })
    done(error)
    // A `Socket` says itself that it is closed.
    process.nextTick(() => this.emit('close', error !== null))
  }

  override ref(): this {
    return this
  }

  override unref(): this {
    return this
  }

  override resetAndDestroy(): this {
    this.#out?.reset()
    return this.destroy()
  }

  #send(bytes: Buffer, done: Done): void {
    this.#whenConnected(() => {
      this.#sent += bytes.length
      this.#out?.send(bytes, done)
    })
  }

  #whenConnected(run: () => void): void {
    if (this.connecting) this.once('connect', run)
    else run()
  }

  #wake(): void {
    this.#isFull = false
    this.#isPaused = false
    this.#in?.resume()
  }
}

export type WireOptions = {
  readonly clock: Clock
  /** How a write of this many bytes travels: pieces, and the delay of each in milliseconds. */
  readonly plan: (size: number) => readonly (readonly [bytes: number, delayMs: number])[]
  readonly isHeld: () => boolean
  /** Resets the connection after this many bytes. */
  readonly cutAfter: number
  readonly onMoved: () => void
}

export type Wire = {
  readonly client: SimSocket
  readonly server: SimSocket
  /** Both ends see a reset. */
  readonly reset: () => void
  /** Nothing arrives any more. */
  readonly lose: () => void
  /** What was held goes on. */
  readonly resume: () => void
}

export const joinSockets = (client: SimSocket, server: SimSocket, options: WireOptions): Wire => {
  let left = options.cutAfter
  const reset = () => {
    client.destroy(resetError())
    server.destroy(resetError())
  }
  const count = (size: number) => {
    left -= size
    if (left <= 0) queueMicrotask(reset)
    options.onMoved()
  }
  const up = new Link({ from: client, to: server }, options, count)
  const down = new Link({ from: server, to: client }, options, count)
  client.join(up, down)
  server.join(down, up)
  return {
    client,
    server,
    reset,
    lose() {
      up.lose()
      down.lose()
    },
    resume() {
      up.resume()
      down.resume()
    },
  }
}

type Item = { readonly at: number; readonly bytes: Buffer | 'end' | 'reset' }

/** Bytes under way before a writer has to wait. */
const WINDOW_BYTES = 64 * 1024

/** One direction: bytes arrive in order, each at its time. */
class Link {
  readonly #from: SimSocket
  readonly #to: SimSocket
  readonly #options: WireOptions
  readonly #onBytes: (size: number) => void
  readonly #queue: Item[] = []
  #bytes = 0
  #waiting: (() => void)[] = []
  #cancel: (() => void) | undefined
  #isLost = false
  #isEnded = false
  /** The receiver is gone: what still comes is answered with a reset. */
  #isRefused = false

  constructor(
    { from, to }: { readonly from: SimSocket; readonly to: SimSocket },
    options: WireOptions,
    onBytes: (size: number) => void,
  ) {
    this.#from = from
    this.#to = to
    this.#options = options
    this.#onBytes = onBytes
  }

  /** Bytes have arrived that nobody has read. */
  get hasArrived(): boolean {
    const [first] = this.#queue
    return first?.bytes instanceof Buffer && first.at <= this.#options.clock.monotonic()
  }

  send(bytes: Buffer, done: Done): void {
    let from = 0
    for (const [size, delayMs] of this.#options.plan(bytes.length)) {
      this.#add(bytes.subarray(from, from + size), delayMs)
      from += size
    }
    this.#bytes += bytes.length
    if (this.#bytes <= WINDOW_BYTES) {
      process.nextTick(done)
      return
    }
    this.#waiting.push(done)
  }

  end(): void {
    if (this.#isEnded) return
    this.#isEnded = true
    this.#add('end', 0)
  }

  reset(): void {
    this.#isEnded = true
    this.#queue.length = 0
    this.#add('reset', 0)
  }

  refuse(): void {
    this.#isRefused = true
    this.resume()
  }

  lose(): void {
    this.#isLost = true
    this.#cancel?.()
  }

  resume(): void {
    if (this.#cancel === undefined) this.#arm()
  }

  #add(bytes: Item['bytes'], delayMs: number): void {
    const now = this.#options.clock.monotonic()
    const at = Math.max(now + delayMs, this.#queue.at(-1)?.at ?? 0)
    this.#queue.push({ at, bytes })
    this.#options.onMoved()
    if (this.#queue.length === 1) this.#arm()
  }

  #arm(): void {
    const [first] = this.#queue
    if (first === undefined || this.#isLost) return
    const { clock } = this.#options
    this.#cancel?.()
    this.#cancel = clock.after(Math.max(0, first.at - clock.monotonic()), () => {
      this.#cancel = undefined
      this.#pump()
    })
  }

  #pump(): void {
    const { clock, isHeld } = this.#options
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      if (this.#isLost || isHeld()) return
      if (first.at > clock.monotonic()) return this.#arm()
      if (this.#isRefused) return this.#bounce()
      // A peer that has not taken the connection yet takes no bytes either.
      if (first.bytes instanceof Buffer && !this.#to.isReadable) return
      this.#queue.shift()
      this.#deliver(first.bytes)
    }
  }

  #deliver(bytes: Item['bytes']): void {
    this.#options.onMoved()
    if (bytes === 'reset') return void this.#to.destroy(resetError())
    if (bytes === 'end') return this.#to.receiveEnd()
    this.#bytes -= bytes.length
    this.#to.receive(bytes)
    this.#onBytes(bytes.length)
    if (this.#bytes <= WINDOW_BYTES) for (const done of this.#waiting.splice(0)) done()
  }

  /** The receiver is gone: bytes are answered with a reset. */
  #bounce(): void {
    if (this.#queue.some(({ bytes }) => bytes instanceof Buffer)) this.#from.destroy(resetError())
    this.#queue.length = 0
    this.#cancel?.()
    this.#cancel = undefined
    this.#bytes = 0
    for (const done of this.#waiting.splice(0)) done()
  }
}
