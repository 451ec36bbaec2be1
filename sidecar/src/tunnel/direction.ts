/** Relays one direction of a stream with backpressure, and can end it with a close frame. */

import type { Duplex } from 'node:stream'

import type { GatewayReader } from './gateway-reader.ts'
import { FrameScanner } from '../websocket/scanner.ts'
import type { ScannerOptions, Violation } from '../websocket/scanner.ts'

export type DirectionOptions = ScannerOptions & {
  readonly source: Duplex
  /** Reads the source, unless that does so itself. */
  readonly reader?: GatewayReader | undefined
  readonly sink: Duplex
  /** The source broke a rule; what came before was relayed. */
  readonly onViolation: (code: Violation) => void
  /** The source's own close frame was relayed. */
  readonly onClosePassed: () => void
}

export class Direction {
  readonly scanner: FrameScanner
  readonly sink: Duplex
  /** Bytes read from the source, relayed or not: a sign of life. */
  received = 0
  /** Set once the source will send nothing more. */
  isSourceEnded = false
  /** Set once the sink's peer has left: a frame under way need not be finished for it. */
  isSinkLeaving = false

  // Fields of its own, not an object of options: each object on the way of a message is one more
  // that has to be fetched from memory, when there are a thousand streams.
  readonly #source: Duplex
  readonly #reader: GatewayReader | undefined
  readonly #onViolation: (code: Violation) => void
  readonly #onClosePassed: () => void
  /** The chunk that filled the sink: it holds on to it until it drains. */
  #unwritten: Buffer | undefined
  #closeFrame: Buffer | undefined
  #isPaused = false
  #isShut = false

  constructor(options: DirectionOptions) {
    this.scanner = new FrameScanner(options)
    this.sink = options.sink
    this.#source = options.source
    this.#reader = options.reader
    this.#onViolation = options.onViolation
    this.#onClosePassed = options.onClosePassed
  }

  /** Whether the source is not read because the sink is slow. */
  get isPaused(): boolean {
    return this.#isPaused
  }

  /** Relays `head`, read earlier, and then what the source sends. */
  start(head: Buffer): void {
    this.#source.on('data', this.#onData)
    this.sink.on('drain', this.#onDrain)
    this.#reader?.start(this)
    if (head.length > 0) this.take(head, head.length)
    // A socket paused on purpose is not set flowing by a `data` listener, one never read is.
    if (this.#isPaused) this.#source.pause()
    else this.#source.resume()
  }

  stop(): void {
    this.#source.off('data', this.#onData)
    this.sink.off('drain', this.#onDrain)
    this.#reader?.stop()
  }

  /**
   * Ends the direction with `frame` once the frame under way is whole; a direction whose rest will
   * never come, or is of no use any more, ends where it is. The source is read on and discarded:
   * closing a socket with unread bytes resets it, and the reset would eat our close frame.
   */
  close(frame: Buffer): void {
    this.#closeFrame ??= frame
    this.scanner.stop()
    const isHopeless = this.isSourceEnded || this.isSinkLeaving || !this.sink.writable
    if (this.scanner.atBoundary || isHopeless) this.#shut()
  }

  /** Ends the sink without a frame of ours: the peers have said what there is to say. */
  endSink(): void {
    if (this.sink.writable) this.sink.end()
  }

  /** Gives the direction up, its sink being gone: what the source still sends is discarded. */
  abandon(): void {
    this.scanner.stop()
    this.#shut()
  }

  /** Puts `frame` between two frames of the source; false where that cannot be done now. */
  inject(frame: Buffer): boolean {
    const { sink } = this
    if (this.#isShut || this.scanner.isDone || !this.scanner.atBoundary) return false
    if (!sink.writable || sink.writableNeedDrain) return false
    sink.write(frame)
    return true
  }

  /**
   * Node reads into fresh memory, 64 KiB of it each time, and frees it in collections, which would
   * cost more than all the rest of relaying: it goes back as soon as the sink has written it.
   */
  readonly #onData = (chunk: Buffer): void => {
    this.take(chunk, chunk.length)
    const { sink } = this
    if (sink.writableLength === 0) releaseChunk(chunk)
    else if (sink.writableNeedDrain) this.#unwritten = chunk
  }

  /** Relays the first `length` bytes of `chunk`. */
  take(chunk: Buffer, length: number): void {
    this.received += length
    if (this.#isShut || this.scanner.isDone) return
    const size = this.scanner.scan(chunk, length)
    this.#relay(this.scanner.takeHeld(), size === chunk.length ? chunk : chunk.subarray(0, size))
    if (this.scanner.isDone) this.#onScannerDone()
  }

  readonly #onDrain = (): void => {
    if (this.#unwritten !== undefined && this.sink.writableLength === 0)
      releaseChunk(this.#unwritten)
    this.#unwritten = undefined
    this.#reader?.drained()
    if (!this.#isPaused) return
    this.#isPaused = false
    this.#source.resume()
  }

  #relay(held: Buffer | undefined, bytes: Buffer): void {
    const { sink } = this
    if (bytes.length === 0 || !sink.writable) return
    if (held !== undefined) {
      sink.cork()
      sink.write(held)
    }
    const isRoomLeft = sink.write(bytes)
    if (held !== undefined) sink.uncork()
    if (isRoomLeft || !sink.writableNeedDrain) return
    this.#isPaused = true
    this.#source.pause()
  }

  #onScannerDone(): void {
    const { violation, closeSeen } = this.scanner
    if (violation !== undefined) this.#onViolation(violation)
    else if (closeSeen) this.#onClosePassed()
    if (this.#closeFrame !== undefined) this.#shut()
  }

  #shut(): void {
    if (this.#isShut) return
    this.#isShut = true
    const { sink } = this
    const isFrameDue = this.scanner.atBoundary && !this.scanner.closeSeen
    if (isFrameDue && this.#closeFrame !== undefined && sink.writable) sink.write(this.#closeFrame)
    this.endSink()
    this.#isPaused = false
    this.#source.resume()
  }
}

/**
 * Gives the memory of `chunk` back at once, and leaves it empty. One that is only a part of its
 * memory shares it with others, as those of Node's own pool do, and is left alone.
 */
function releaseChunk(chunk: Buffer): void {
  const { buffer, byteLength } = chunk
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
}
