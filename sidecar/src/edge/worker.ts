/** One worker in its handshake: its socket from the upgrade to the release or the refusal. */

import type { Socket } from 'node:net'
import type { Credential } from '../authn/credential.ts'
import type { Clock } from '../lib/clock.ts'
import { denied, granted, type Code, type Verdict } from '../denial.ts'
import type { WorkerSide } from '../dialect/dialect.ts'
import { BoundedReplies } from '../websocket/bounded-replies.ts'
import { FirstMessageReader } from '../websocket/first-message.ts'
import { acceptKeyOf } from '../websocket/accept-key.ts'
import { textFrame } from '../websocket/frames.ts'
import { EarlyBytes } from './early-bytes.ts'
import { Entrant } from './entrant.ts'
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

/**
 * The most frames of a first message and the pings before it: each costs work, however short it is.
 */
const FIRST_FRAMES_MAX = 256
const EMPTY = Buffer.alloc(0)

export class Worker extends Entrant implements WorkerSide {
  /** The name of the port that the worker connected to, as the gateway is told it. */
  readonly host: string
  readonly role: string | undefined
  readonly hasOrigin: boolean
  readonly userAgent: string | undefined
  readonly traceparent: string | undefined
  readonly subprotocols: readonly string[]
  readonly #key: string
  readonly #options: Pick<WorkerOptions, 'clock' | 'random' | 'preAuthFrameBytesMax'>
  #isOpen = false
  #isClosedByPeer = false
  #isReading = false
  readonly #early: EarlyBytes

  constructor({ socket, head, address, host, upgrade, credential, ...options }: WorkerOptions) {
    super({ socket, address, token: credential?.token })
    this.host = host
    this.role = upgrade.role
    this.hasOrigin = upgrade.hasOrigin
    this.userAgent = upgrade.userAgent
    this.traceparent = upgrade.traceparent
    this.subprotocols = upgrade.subprotocols
    this.#key = upgrade.key
    this.#options = options
    // Node's `head` is a view of the whole request, token included: a stream must not keep that
    // alive.
    const early = Buffer.allocUnsafeSlow(head.length)
    head.copy(early)
    this.#early = new EarlyBytes(socket)
    this.#early.start(early)
  }

  /** Bytes read from the socket that belong to the stream. */
  get head(): Buffer {
    return this.#early.held
  }

  /** Whether we wait for the worker's message. */
  get isReading(): boolean {
    return this.#isReading
  }

  open(subprotocol: string | undefined): void {
    const chosen = subprotocol === undefined ? '' : `Sec-WebSocket-Protocol: ${subprotocol}\r\n`
    this.#isOpen = true
    this.socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${acceptKeyOf(this.#key)}\r\n${chosen}\r\n`,
    )
  }

  send(text: string): void {
    this.socket.write(textFrame(text, { masked: false }))
  }

  nextMessage(): Promise<Verdict<string>> {
    const { abortCode, socket } = this
    if (abortCode !== undefined) return Promise.resolve(denied(abortCode))
    const { preAuthFrameBytesMax } = this.#options
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
    const { socket } = this
    const { clock, random } = this.#options
    this.release()
    if (this.#isClosedByPeer) endOpened(socket, clock)
    else if (this.#isOpen) refuseOpened(socket, code, message, clock)
    else refuseUpgrade(socket, code, { clock, random })
  }

  /** Hands over the socket, paused. Returns the bytes that precede those still in it. */
  release(): Buffer {
    this.leave()
    return this.#early.stop()
  }
}
