/** Relays one direction of a stream with backpressure, and can end it with a close frame. */

import type { Duplex } from 'node:stream'

import type { GatewayReader } from './gateway-reader.ts'
import { FrameScanner } from '../websocket/scanner.ts'
import type { ScannerOptions, Violation } from '../websocket/scanner.ts'

export type DirectionOptions = ScannerOptions & {
  readonly source: Duplex
  /** Reads the source; without it the source reads itself. */
  readonly reader?: GatewayReader | undefined
  readonly sink: Duplex
  /** The source broke a rule; everything before that was relayed. */
  readonly onViolation: (code: Violation) => void
  /** The source's own close frame was relayed. */
  readonly onClosePassed: () => void
}

export class Direction {
  readonly scanner: FrameScanner
  readonly sink: Duplex
  /** Bytes read from the source, relayed or not: a sign of life. */
  received = 0
  /** Whether the source has ended. */
  isSourceEnded = false
  /** Whether the sink's peer has left: the current frame need not be finished for it. */
  isSinkLeaving = false

  // Plain fields, not an options object: with a thousand streams, each extra object on a message's
  // path is one more fetch from memory.
  readonly #source: Duplex
  readonly #reader: GatewayReader | undefined
  readonly #onViolation: (code: Violation) => void
  readonly #onClosePassed: () => void
  /** The chunk that filled the sink, which holds it until it drains. */
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

  /** Whether the source is paused because the sink is slow. */
  get isPaused(): boolean {
    return this.#isPaused
  }

  /** Relays `head`, which was read earlier, and then what the source sends. */
  start(head: Buffer): void {
    this.#source.on('data', this.#onData)
    this.sink.on('drain', this.#onDrain)
    this.#reader?.start(this)
    if (head.length > 0) this.take(head, head.length)
    // A `data` listener does not resume a socket that was paused on purpose, only one never read.
    if (this.#isPaused) this.#source.pause()
    else this.#source.resume()
  }

  stop(): void {
    this.#source.off('data', this.#onData)
    this.sink.off('drain', this.#onDrain)
    this.#reader?.stop()
  }

  /**
   * Ends the direction with `frame` once the current frame is complete. If the rest of that frame
   * will never come, or is useless, the direction ends at once. The source is still read, and
   * discarded: closing a socket with unread bytes resets it, and the reset would lose our close
   * frame.
   */
  close(frame: Buffer): void {
    this.#closeFrame ??= frame
    this.scanner.stop()
    const isHopeless = this.isSourceEnded || this.isSinkLeaving || !this.sink.writable
    if (this.scanner.atBoundary || isHopeless) this.#shut()
  }

  /** Ends the sink without our own close frame: the peers have already exchanged theirs. */
  endSink(): void {
    if (this.sink.writable) this.sink.end()
  }

  /** Gives up the direction because its sink is gone: what the source still sends is discarded. */
  abandon(): void {
    this.scanner.stop()
    this.#shut()
  }

  /** Inserts `frame` between two frames of the source; false if that is impossible now. */
  inject(frame: Buffer): boolean {
    const { sink } = this
    if (this.#isShut || this.scanner.isDone || !this.scanner.atBoundary) return false
    if (!sink.writable || sink.writableNeedDrain) return false
    sink.write(frame)
    return true
  }

  /**
   * Node allocates 64 KiB for each read and frees it by garbage collection, which would cost more
   * than all other relaying. So the memory is freed as soon as the sink has written it.
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
 * Frees the memory of `chunk` at once and leaves it empty. A chunk that is only part of its
 * ArrayBuffer shares it with others, as in Node's own pool, and is left alone.
 */
function releaseChunk(chunk: Buffer): void {
  const { buffer, byteLength } = chunk
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
}
