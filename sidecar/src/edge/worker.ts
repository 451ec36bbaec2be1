/** One worker in its handshake: its socket from the upgrade to the release or the refusal. */

import { hash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Credential } from '../authn/credential.ts'
import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import type { WorkerSide } from '../dialect/dialect.ts'
import { BoundedReplies } from '../websocket/bounded-replies.ts'
import { FirstMessageReader } from '../websocket/first-message.ts'
import { textFrame } from '../websocket/frames.ts'
import { EarlyBytes } from './early-bytes.ts'
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

/**
 * The most frames of a first message and the pings before it: each costs work, however short it is.
 */
const FIRST_FRAMES_MAX = 256
const EMPTY = Buffer.alloc(0)

export class Worker implements WorkerSide {
  readonly options: Omit<WorkerOptions, 'credential' | 'head'>
  /** Called once if the worker leaves or times out during its admission. */
  onGone: (code: Code) => void = () => {}
  #token: string | undefined
  #abortCode: Code | undefined
  #isOpen = false
  #isClosedByPeer = false
  #isReading = false
  readonly #early: EarlyBytes
  readonly #onLeft = () => this.abort('worker_gone')

  constructor({ credential, head, ...options }: WorkerOptions) {
    this.options = options
    this.#token = credential?.token
    // Node's `head` is a view of the whole request, token included: a stream must not keep that
    // alive.
    const early = Buffer.allocUnsafeSlow(head.length)
    head.copy(early)
    options.socket.once('end', this.#onLeft)
    options.socket.once('close', this.#onLeft)
    this.#early = new EarlyBytes(options.socket)
    this.#early.start(early)
  }

  /** Bytes read from the socket that belong to the stream. */
  get head(): Buffer {
    return this.#early.held
  }

  get address(): string {
    return this.options.address
  }

  /** Only until the release: the token is not kept. */
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

  /** Whether we wait for the worker's message. */
  get isReading(): boolean {
    return this.#isReading
  }

  /** Why this worker was given up. */
  get abortCode(): Code | undefined {
    return this.#abortCode
  }

  /** Gives the worker up; the first code counts. */
  abort(code: Code): void {
    if (this.#abortCode !== undefined) return
    this.#abortCode = code
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
    if (this.#abortCode !== undefined) return Promise.resolve(denied(this.#abortCode))
    const { socket, preAuthFrameBytesMax } = this.options
    const reader = new FirstMessageReader({
      masked: true,
      bytesMax: preAuthFrameBytesMax,
      framesMax: FIRST_FRAMES_MAX,
    })
    const replies = new BoundedReplies(socket)
    const { promise, resolve } = Promise.withResolvers<Verdict<string>>()
    this.#isReading = true
    const settle = (verdict: Verdict<string>, rest: Buffer) => {
      this.#isReading = false
      socket.off('data', onData)
      this.onGone = () => {}
      this.#early.start(rest)
      resolve(verdict)
    }
    const onData = (chunk: Buffer) => {
      const read = reader.push(chunk)
      if (read.kind === 'more') return replies.write(read.reply)
      replies.finish(read.reply)
      switch (read.kind) {
        case 'message':
          return settle(granted(read.text), read.rest)
        case 'violation':
          return settle(denied(read.code), EMPTY)
        case 'closed':
          this.#isClosedByPeer = true
          return settle(denied('worker_gone'), EMPTY)
      }
    }
    this.onGone = (code) => settle(denied(code), EMPTY)
    // What came with the upgrade is put back in front of what is still in the socket.
    socket.unshift(this.#early.stop())
    socket.on('data', onData)
    socket.resume()
    return promise
  }

  /**
   * Answers over HTTP or the WebSocket, depending on how far the worker got, and ends its socket.
   */
  refuse(code: Code, message: string | undefined): void {
    const { socket, clock, random } = this.options
    this.release()
    if (this.#isClosedByPeer) endOpened(socket, clock)
    else if (this.#isOpen) refuseOpened(socket, code, message, clock)
    else refuseUpgrade(socket, code, { clock, random })
  }

  /** Hands over the socket, paused. Returns the bytes that precede those still in it. */
  release(): Buffer {
    this.onGone = () => {}
    this.#token = undefined
    this.options.socket.off('end', this.#onLeft)
    this.options.socket.off('close', this.#onLeft)
    return this.#early.stop()
  }
}
