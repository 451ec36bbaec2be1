/** Relays one request of session hosting and its answer, as bytes with backpressure. */

import { request as sendRequest } from 'node:http'
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Code } from '../denial.ts'
import { endpointOf } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import { systemNetwork, type Network } from '../lib/network.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import type { RelayTotals } from '../lib/relay-totals.ts'
import type { UpstreamTransfer } from './headers.ts'
import { readTransferAnswer, type TransferAnswer } from './transfer-answer.ts'

export type TransferSummary = {
  /** Why it ended; `completed` when the worker has the whole answer. */
  readonly code: Code | 'completed'
  /** The status of the answer; `undefined` where the gateway gave none that was passed on. */
  readonly status: number | undefined
  readonly counts: RelayTotals
}

export type TransferOptions = {
  readonly upstream: UpstreamTransfer
  readonly url: URL
  readonly connectTimeoutMs: number
  /** The worker's request; its body has a known length. Nobody else reads it. */
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Answers the worker in the gateway's place, and ends its socket. */
  readonly refuse: (code: Code) => void
  readonly clock: Clock
  readonly connect?: Network['connect'] | undefined
  readonly watchPeer: (socket: Socket) => void
  /** Called once, when the worker's socket is gone. */
  readonly onClose: (summary: TransferSummary) => void
}

/** The longest transfer, in milliseconds: a node waits no longer. */
const TRANSFER_MS_MAX = 600_000
/** Periods without a byte after which a worker that has to read or to write is dead. */
const STALLED_MAX = 2
/** The longest head of an answer, in bytes. */
const HEAD_BYTES_MAX = 16_384

/**
 * The worker's body is read to its end before it is answered, even if the gateway has refused it:
 * a node that is answered earlier can crash. The gateway's connection serves one request, and the
 * worker's does too.
 *
 *     what happens                                   code                    what follows
 *     the answer is complete at the worker           `completed`
 *     the gateway does not answer, or badly          `gateway_…`             refuse, once the body is read
 *     the gateway's answer breaks off                `gateway_gone`          refuse, or drop within an answer
 *     the worker ends or resets its socket           `worker_gone`           drop
 *     `close(code)`, too long, a stalled worker      that code               refuse, or drop within an answer
 *
 *     drop      destroy both sockets: the announced length tells the worker that bytes are missing
 */
export class Transfer {
  readonly #options: TransferOptions
  readonly #outgoing: ClientRequest
  #bytesUp = 0
  #bytesDown = 0
  #code: Code | undefined
  #answer: TransferAnswer | undefined
  /** What the worker gets in place of an answer. */
  #failure: Code | undefined
  #isBodyRead = false
  #isAnswering = false
  #moved = 0
  #stalled = 0
  #cancelConnect = () => {}
  #cancelDeadline = () => {}

  constructor(options: TransferOptions) {
    const { upstream, url, connect = systemNetwork.connect, watchPeer } = options
    this.#options = options
    this.#outgoing = sendRequest({
      ...endpointOf(url),
      method: upstream.method,
      path: upstream.target,
      headers: upstream.headers,
      agent: false,
      createConnection: () => connect(endpointOf(url)),
      maxHeaderSize: HEAD_BYTES_MAX,
    })
    this.#outgoing.once('socket', watchPeer)
  }

  get counts(): RelayTotals {
    const messages = { messagesUp: 0, messagesDown: 0 }
    return { bytesUp: this.#bytesUp, bytesDown: this.#bytesDown, ...messages }
  }

  start(): void {
    const { clock, connectTimeoutMs, request, response } = this.#options
    const { socket } = request
    this.#cancelDeadline = clock.after(TRANSFER_MS_MAX, () => this.close('transfer_timeout'))
    this.#cancelConnect = clock.after(connectTimeoutMs, () => this.#fail('gateway_unreachable'))
    for (const stream of [request, response, this.#outgoing]) stream.on('error', ignoreError)
    socket.once('close', () => this.#finish())
    // Node says nothing of a body that ends too early while the other half is open.
    socket.once('end', () => {
      if (!request.complete) this.#lose('worker_gone')
    })
    this.#receiveAnswer()
    this.#sendBody()
  }

  /** Ends the transfer; the first code wins. */
  close(code: Code): void {
    if (this.#code !== undefined) return
    this.#code = code
    this.#outgoing.destroy()
    if (this.#isAnswering) this.destroy()
    else this.#options.refuse(code)
  }

  destroy(): void {
    this.#outgoing.destroy()
    this.#options.request.socket.destroy()
  }

  /** Ends one idle period: a worker that neither reads nor writes what is due is dead. */
  ping(): void {
    const moved = this.#bytesUp + this.#bytesDown
    const isStalled = moved === this.#moved && this.#isWorkerDue
    this.#moved = moved
    this.#stalled = isStalled ? this.#stalled + 1 : 0
    if (this.#stalled > STALLED_MAX) this.close('idle_timeout')
  }

  /** Whether the next step is the worker's; the gateway may take its time. */
  get #isWorkerDue(): boolean {
    const { request, response } = this.#options
    if (!this.#isBodyRead) return !request.isPaused()
    return response.writableLength > 0
  }

  #sendBody(): void {
    const { request } = this.#options
    const outgoing = this.#outgoing
    request.on('data', (chunk: Buffer) => {
      this.#bytesUp += chunk.length
      if (!outgoing.destroyed && !outgoing.write(chunk)) request.pause()
    })
    outgoing.on('drain', () => request.resume())
    request.once('end', () => {
      this.#isBodyRead = true
      if (!outgoing.destroyed) outgoing.end()
      this.#tryAnswer()
    })
    request.resume()
  }

  #receiveAnswer(): void {
    const outgoing = this.#outgoing
    outgoing.once('socket', (socket) => {
      if (socket.connecting) socket.once('connect', () => this.#cancelConnect())
      else this.#cancelConnect()
    })
    outgoing.once('response', (incoming) => {
      const answer = readTransferAnswer(incoming)
      incoming.on('error', ignoreError)
      if (answer === undefined) return this.#fail('gateway_refused')
      this.#answer = answer
      incoming.once('close', () => {
        if (!incoming.complete) this.#breakOff()
      })
      this.#tryAnswer()
    })
    // A request that asks for no upgrade was answered with 101.
    outgoing.once('upgrade', (_incoming, socket) => {
      socket.destroy()
      this.#fail('gateway_refused')
    })
    outgoing.once('error', () => {
      this.#fail(outgoing.socket?.connecting === false ? 'gateway_gone' : 'gateway_unreachable')
    })
    outgoing.once('close', () => this.#fail('gateway_gone'))
  }

  /** The gateway has not answered, and will not. */
  #fail(code: Code): void {
    if (this.#answer !== undefined || this.#failure !== undefined) {
      // It has answered, but reads no more of the body: the rest is for nobody.
      if (!this.#isBodyRead) this.#options.request.resume()
      return
    }
    this.#failure = code
    this.#cancelConnect()
    this.#outgoing.destroy()
    this.#options.request.resume()
    this.#tryAnswer()
  }

  #tryAnswer(): void {
    if (!this.#isBodyRead || this.#isAnswering || this.#code !== undefined) return
    if (this.#failure !== undefined) return this.close(this.#failure)
    if (this.#answer !== undefined) this.#passAnswer(this.#answer)
  }

  #passAnswer({ incoming, status, headers }: TransferAnswer): void {
    const { response } = this.#options
    this.#isAnswering = true
    response.writeHead(status, [...headers, 'Connection', 'close'])
    incoming.on('data', (chunk: Buffer) => {
      this.#bytesDown += chunk.length
      if (!response.write(chunk)) incoming.pause()
    })
    response.on('drain', () => incoming.resume())
    incoming.once('end', () => response.end())
  }

  /** The gateway's answer will never be whole. The worker can still be told, unless it has begun. */
  #breakOff(): void {
    if (this.#isAnswering) return this.#lose('gateway_gone')
    this.#answer = undefined
    this.#fail('gateway_gone')
  }

  /** An end is gone in the middle of a message. */
  #lose(code: Code): void {
    this.#code ??= code
    this.destroy()
  }

  #finish(): void {
    const { onClose, response } = this.#options
    this.#cancelConnect()
    this.#cancelDeadline()
    this.#outgoing.destroy()
    const code = this.#code ?? (response.writableFinished ? 'completed' : 'worker_gone')
    const status = this.#isAnswering ? this.#answer?.status : undefined
    onClose({ code, status, counts: this.counts })
  }
}
