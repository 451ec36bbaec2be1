/** Joins a worker's socket and a gateway's socket into one stream that can be closed cleanly. */

import type { Duplex } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import { CODES, type Code } from '../denial.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import type { RelayTotals } from '../lib/relay-totals.ts'
import { Direction } from './direction.ts'
import { closeFrame } from '../websocket/frames.ts'
import type { GatewayReader } from './gateway-reader.ts'
import { Heartbeat } from './heartbeat.ts'
import type { Violation } from '../websocket/scanner.ts'

/** Close frames and pings sent by us are not counted. */
type Counts = RelayTotals & { readonly framesUp: number; readonly framesDown: number }

export type Summary = {
  /** Why the stream ended; `completed` when the peers closed it themselves. */
  readonly code: Code | 'completed'
  readonly counts: Counts
}

export type Stream = {
  /** Ends both sides with the code's close frame. The first code wins. */
  readonly close: (code: Code) => void
  /** Whether the stream is closing. */
  readonly isClosing: boolean
  /** Ends one idle period: pings silent sides and closes the stream if one is dead. */
  readonly ping: () => void
  readonly counts: Counts
  /** Destroys both sockets at once, without close frames. */
  readonly destroy: (code?: Code) => void
}

export type SpliceOptions = {
  readonly worker: Duplex
  /** Bytes of the worker that were read earlier and precede what its socket still holds. */
  readonly workerHead: Buffer
  readonly gateway: Duplex
  /** Reads the gateway's socket; without it the socket reads itself. */
  readonly gatewayReader?: GatewayReader | undefined
  readonly gatewayHead: Buffer
  /** Bytes of a message, all its fragments together. */
  readonly messageBytesMax: number
  /** Unfinished empty fragments allowed in a row. */
  readonly emptyFragmentsMax: number
  /** How long a close may take before both sockets are destroyed, in milliseconds. Default 5000. */
  readonly closeTimeoutMs?: number
  /**
   * How long to keep a worker after its gateway goes, in milliseconds, so that not all workers
   * return at once. Default 0.
   */
  readonly gatewayGoneDelayMs?: () => number
  readonly clock: Clock
  /** Called once, when both sockets are gone; never before `splice` has returned. */
  readonly onClose: (summary: Summary) => void
}

export function splice(options: SpliceOptions): Stream {
  const stream = new SplicedStream(options)
  stream.start(options)
  return stream
}

const CLOSE_TIMEOUT_MS = 5000
/** How long a peer may take to answer the other's close frame, in milliseconds. */
const CLOSE_REPLY_MS = 30_000

/** One end of the stream: its socket, the direction from it and the direction to it. */
type End = {
  readonly socket: Duplex
  readonly from: Direction
  readonly toward: Direction
  readonly goneCode: Code
  isGone: boolean
  /** As a second one, our own listener would cost each idle stream an array of listeners. */
  readonly hasErrorListener: boolean
  readonly onEnd: () => void
  readonly onGone: () => void
}

/**
 * How a stream ends. The first code wins; both sockets closed is always the end, in `#finish`.
 *
 *     what happens                              code            what follows
 *     one peer's close frame was relayed        `completed`     `#cancelReply`: 30 s, then drop
 *     both close frames were relayed            `completed`     end the worker's socket, deadline
 *     a socket ends after a close frame         `completed`     end the other socket, deadline
 *     the worker ends without a close frame     `worker_gone`   shut
 *     the gateway ends without a close frame    `gateway_gone`  `#cancelDelay` (if set), then shut
 *     a violation, a dead peer, `close(code)`   that code       shut, unless both closed before
 *     `destroy(code)`                           that code       drop
 *
 *     shut      a close frame of ours to both sides, deadline
 *     deadline  `#cancelDeadline`: `closeTimeoutMs`, then drop
 *     drop      destroy both sockets
 */
class SplicedStream implements Stream {
  // Not the options object: it holds the heads, and with them the chunks they came in.
  readonly #clock: Clock
  readonly #closeTimeoutMs: number
  readonly #gatewayGoneDelayMs: (() => number) | undefined
  readonly #reportClose: (summary: Summary) => void
  readonly #up: Direction
  readonly #down: Direction
  readonly #worker: End
  readonly #gateway: End
  #heartbeats: readonly Heartbeat[] | undefined
  #code: Code | undefined
  #cancelDelay: (() => void) | undefined
  #cancelDeadline: (() => void) | undefined
  #cancelReply: (() => void) | undefined

  constructor(options: SpliceOptions) {
    const { worker, gateway, gatewayReader } = options
    this.#clock = options.clock
    this.#closeTimeoutMs = options.closeTimeoutMs ?? CLOSE_TIMEOUT_MS
    this.#gatewayGoneDelayMs = options.gatewayGoneDelayMs
    this.#reportClose = options.onClose
    const common = {
      messageBytesMax: options.messageBytesMax,
      emptyFragmentsMax: options.emptyFragmentsMax,
      onViolation: this.#onViolation,
      onClosePassed: this.#onClosePassed,
    }
    this.#up = new Direction({ ...common, source: worker, sink: gateway, masked: true })
    this.#down = new Direction({
      ...common,
      source: gateway,
      reader: gatewayReader,
      sink: worker,
      masked: false,
    })
    this.#worker = this.#end(worker, this.#up, this.#down)
    this.#gateway = this.#end(gateway, this.#down, this.#up)
  }

  get isClosing(): boolean {
    return this.#code !== undefined || this.#cancelDeadline !== undefined
  }

  get counts(): Counts {
    const [up, down] = [this.#up.scanner, this.#down.scanner]
    return {
      bytesUp: up.bytes,
      bytesDown: down.bytes,
      messagesUp: up.messages,
      messagesDown: down.messages,
      framesUp: up.frames,
      framesDown: down.frames,
    }
  }

  start({ workerHead, gatewayHead }: Pick<SpliceOptions, 'workerHead' | 'gatewayHead'>): void {
    for (const { socket, hasErrorListener, onEnd, onGone } of [this.#worker, this.#gateway]) {
      if (!hasErrorListener) socket.on('error', ignoreError)
      socket.on('end', onEnd)
      socket.on('close', onGone)
      // The events of a socket that closed earlier were missed.
      if (socket.readableEnded) queueMicrotask(onEnd)
      if (socket.closed) queueMicrotask(onGone)
    }
    this.#down.start(gatewayHead)
    this.#up.start(workerHead)
  }

  close(code: Code): void {
    if (this.#isCloseExchanged) return
    this.#code ??= code
    this.#shut(this.#code)
  }

  destroy(code: Code = 'draining'): void {
    if (!this.isClosing) this.#code = code
    this.#drop()
  }

  #drop(): void {
    this.#worker.socket.destroy()
    this.#gateway.socket.destroy()
  }

  ping(): void {
    if (this.isClosing) return
    this.#heartbeats ??= [
      new Heartbeat(this.#up, this.#down, false),
      new Heartbeat(this.#down, this.#up, true),
    ]
    // Both are judged, so that the death of one side does not spare the other its ping.
    const verdicts = this.#heartbeats.map((heartbeat) => heartbeat.beat())
    if (verdicts.includes(true)) this.close('idle_timeout')
  }

  get #isCloseExchanged(): boolean {
    return this.#up.scanner.closeSeen && this.#down.scanner.closeSeen
  }

  readonly #onViolation = (code: Violation): void => this.close(code)

  #end(socket: Duplex, from: Direction, toward: Direction): End {
    const end: End = {
      socket,
      from,
      toward,
      goneCode: from === this.#up ? 'worker_gone' : 'gateway_gone',
      isGone: false,
      hasErrorListener: socket.listenerCount('error', ignoreError) > 0,
      onEnd: () => this.#onEnd(end),
      onGone: () => this.#onGone(end),
    }
    return end
  }

  readonly #onClosePassed = (): void => {
    if (!this.#isCloseExchanged) {
      // A peer that never answers a close must not keep the stream. It gets longer, as it may be
      // slow.
      this.#cancelReply ??= this.#clock.after(CLOSE_REPLY_MS, () => this.#drop())
      return
    }
    this.#startDeadline()
    // The server closes the TCP connection first (RFC 6455 §7.1.1): here that is us towards the
    // worker, and the gateway towards us.
    this.#down.endSink()
  }

  #onEnd(end: End): void {
    const { from, toward } = end
    if (from.isSourceEnded) return
    from.isSourceEnded = true
    toward.isSinkLeaving = true
    if (this.#code !== undefined) this.#shut(this.#code)
    else if (from.scanner.closeSeen || toward.scanner.closeSeen) {
      from.endSink()
      this.#startDeadline()
    } else this.#lose(end)
  }

  /** One end left without a close frame. */
  #lose(end: End): void {
    const code = end.goneCode
    this.#code = code
    const delayMs = code === 'gateway_gone' ? (this.#gatewayGoneDelayMs?.() ?? 0) : 0
    if (delayMs <= 0) return this.#shut(code)
    end.toward.close(closeOf(code, true))
    this.#cancelDelay = this.#clock.after(delayMs, () => this.#shut(code))
  }

  #onGone(end: End): void {
    this.#onEnd(end)
    end.toward.abandon()
    end.isGone = true
    if (this.#worker.isGone && this.#gateway.isGone) this.#finish()
  }

  #shut(code: Code): void {
    this.#startDeadline()
    this.#up.close(closeOf(code, true))
    this.#down.close(closeOf(code, false))
  }

  #startDeadline(): void {
    this.#cancelDeadline ??= this.#clock.after(this.#closeTimeoutMs, () => this.#drop())
  }

  #finish(): void {
    this.#cancelDelay?.()
    this.#cancelDeadline?.()
    this.#cancelReply?.()
    this.#up.stop()
    this.#down.stop()
    for (const { socket, hasErrorListener, onEnd, onGone } of [this.#worker, this.#gateway]) {
      if (!hasErrorListener) socket.off('error', ignoreError)
      socket.off('end', onEnd)
      socket.off('close', onGone)
    }
    this.#reportClose({ code: this.#code ?? 'completed', counts: this.counts })
  }
}

const closeOf = (code: Code, masked: boolean): Buffer =>
  closeFrame({ code: CODES[code].close, reason: code, masked })
