/** One worker at the door: its socket from the upgrade to the release or the refusal. */

import { hash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Credential } from '../authn/credential.ts'
import type { Clock } from '../clock.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import type { WorkerSide } from '../dialect/dialect.ts'
import { BoundedReplies } from '../tunnel/bounded-replies.ts'
import { FirstMessageReader } from '../tunnel/first-message.ts'
import { textFrame } from '../tunnel/frames.ts'
import { endOpened, refuseOpened, refuseUpgrade } from './refuse.ts'
import type { UpgradeRequest } from './upgrade.ts'

export type WorkerOptions = {
  readonly socket: Socket
  readonly head: Buffer
  readonly address: string
  readonly host: string
  readonly upgrade: UpgradeRequest
  readonly credential: Credential | undefined
  readonly clock: Clock
  readonly random: () => number
  readonly preAuthFrameBytesMax: number
}

/** RFC 6455 §1.3. */
const ACCEPT_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

export class Worker implements WorkerSide {
  readonly options: Omit<WorkerOptions, 'credential' | 'head'>
  /** Bytes read from the socket that belong to the stream. */
  head: Buffer
  /** Told once when the worker is gone or out of time, while its admission is under way. */
  onGone: (code: Code) => void = () => {}
  #token: string | undefined
  #gone: Code | undefined
  #isOpen = false
  #isClosedByPeer = false
  #isAwaited = false
  readonly #onClose = () => this.give('worker_gone')

  constructor({ credential, head, ...options }: WorkerOptions) {
    this.options = options
    this.#token = credential?.token
    // Node's `head` is a view of the whole request, token and all: a stream must not keep that.
    this.head = Buffer.allocUnsafeSlow(head.length)
    head.copy(this.head)
    options.socket.once('close', this.#onClose)
  }

  get address(): string {
    return this.options.address
  }

  /** Until the release: no token is kept. */
  get token(): string | undefined {
    return this.#token
  }

  get role(): string | undefined {
    return this.options.upgrade.role
  }

  get hasOrigin(): boolean {
    return this.options.upgrade.hasOrigin
  }

  get host(): string {
    return this.options.host
  }

  get userAgent(): string | undefined {
    return this.options.upgrade.userAgent
  }

  get traceparent(): string | undefined {
    return this.options.upgrade.traceparent
  }

  get subprotocols(): readonly string[] {
    return this.options.upgrade.subprotocols
  }

  /** Whether it is the worker's turn to send its message. */
  get isAwaited(): boolean {
    return this.#isAwaited
  }

  /** Why nothing can come of this worker any more. */
  get gone(): Code | undefined {
    return this.#gone
  }

  /** Gives the worker up; the first code counts. */
  give(code: Code): void {
    if (this.#gone !== undefined) return
    this.#gone = code
    this.onGone(code)
  }

  open(subprotocol: string | undefined): void {
    const { socket, upgrade } = this.options
    const accept = hash('sha1', upgrade.key + ACCEPT_GUID, 'base64')
    const chosen = subprotocol === undefined ? '' : `Sec-WebSocket-Protocol: ${subprotocol}\r\n`
    this.#isOpen = true
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${accept}\r\n${chosen}\r\n`,
    )
  }

  send(text: string): void {
    this.options.socket.write(textFrame(text, { masked: false }))
  }

  nextMessage(): Promise<Verdict<string>> {
    const { socket, preAuthFrameBytesMax } = this.options
    const reader = new FirstMessageReader({ masked: true, bytesMax: preAuthFrameBytesMax })
    const replies = new BoundedReplies(socket)
    const { promise, resolve } = Promise.withResolvers<Verdict<string>>()
    this.#isAwaited = true
    const settle = (verdict: Verdict<string>) => {
      this.#isAwaited = false
      socket.off('data', onData)
      socket.off('end', onEnd)
      socket.pause()
      this.onGone = () => {}
      resolve(verdict)
    }
    const onEnd = () => settle(denied('worker_gone'))
    const onData = (chunk: Buffer) => {
      const read = reader.push(chunk)
      if (read.kind === 'more') return replies.write(read.reply)
      replies.finish(read.reply)
      switch (read.kind) {
        case 'message':
          this.head = read.rest
          return settle(granted(read.text))
        case 'violation':
          return settle(denied(read.code))
        case 'closed':
          this.#isClosedByPeer = true
          return settle(denied('worker_gone'))
      }
    }
    this.onGone = (code) => settle(denied(code))
    if (this.#gone !== undefined) settle(denied(this.#gone))
    else {
      // What came with the upgrade is put back in front of what is still in the socket.
      socket.unshift(this.head)
      this.head = Buffer.alloc(0)
      socket.on('end', onEnd)
      socket.on('data', onData)
      socket.resume()
    }
    return promise
  }

  /** Answers in the form that fits how far the worker came, and ends its socket. */
  refuse(code: Code, message: string | undefined): void {
    const { socket, clock, random } = this.options
    this.release()
    if (this.#isClosedByPeer) endOpened(socket, clock)
    else if (this.#isOpen) refuseOpened(socket, code, message, clock)
    else refuseUpgrade(socket, code, { clock, random })
  }

  /** The socket is somebody else's from here on. */
  release(): void {
    this.onGone = () => {}
    this.#token = undefined
    this.options.socket.off('close', this.#onClose)
  }
}
