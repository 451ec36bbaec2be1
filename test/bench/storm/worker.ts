/** One worker of a storm: a raw socket that asks to be let in, and comes back as an OpenClaw node does. */

import { connect, type Socket } from 'node:net'
import { connectFrame, createDevice } from '../../kit/light-node.ts'
import type { StormWorker } from './api.ts'

export type WorkerEvents = {
  /** The worker is in its stream. Whether it stays there. */
  readonly onThrough: () => boolean
  /** An attempt failed with a status, a close code or an error's code. */
  readonly onTurnedAway: (why: string) => void
  /** A stream ended, with a close code. */
  readonly onLost: (code: string) => void
  /** The echo of a message has arrived. */
  readonly onEcho: (milliseconds: number) => void
}

export type WorkerTarget = {
  readonly host: string
  readonly port: number
  readonly protocol: 'stream' | 'openclaw'
}

const UPGRADE =
  'GET / HTTP/1.1\r\nHost: openclaw-gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
/** The waits between a node's attempts, in seconds (measured); the last one repeats. */
const BACKOFF_S = [1, 2, 4, 8, 16, 30]
/** How long a node waits for an answer, in milliseconds. */
const ATTEMPT_MS_MAX = 20_000
const EMPTY: Buffer = Buffer.alloc(0)
const MESSAGE_BYTES = 100

const TEXT = 0x1
const BINARY = 0x2
const CLOSE = 0x8
const PING = 0x9
const PONG = 0xa

export class StormNode {
  readonly #worker: StormWorker
  readonly #target: WorkerTarget
  readonly #events: WorkerEvents
  readonly #device: ReturnType<typeof createDevice> | undefined
  #socket: Socket | undefined
  #held = EMPTY
  #isUpgraded = false
  #isIn = false
  #failures = 0
  #why = ''
  #retry: NodeJS.Timeout | undefined
  readonly #sentAt: number[] = []

  constructor(worker: StormWorker, target: WorkerTarget, events: WorkerEvents) {
    this.#worker = worker
    this.#target = target
    this.#events = events
    this.#device = target.protocol === 'openclaw' ? createDevice() : undefined
  }

  get isIn(): boolean {
    return this.#isIn
  }

  /** Connects after this time, unless it is connected or about to be. */
  start(afterMs: number): void {
    if (this.#socket !== undefined) return
    clearTimeout(this.#retry)
    this.#failures = 0
    this.#retry = setTimeout(() => this.#attempt(), afterMs)
  }

  /** Sends a message that is to be echoed. */
  ask(): void {
    if (!this.#isIn) return
    this.#sentAt.push(performance.now())
    this.#socket?.write(frameOf(BINARY, Buffer.alloc(MESSAGE_BYTES)))
  }

  #attempt(): void {
    this.#why = ''
    this.#held = EMPTY
    this.#isUpgraded = false
    this.#sentAt.length = 0
    const { host, port } = this.#target
    const { address, token } = this.#worker
    const socket = connect({ host, port, localAddress: address, noDelay: true })
    this.#socket = socket
    socket.setTimeout(ATTEMPT_MS_MAX, () => {
      this.#why = socket.connecting ? 'not connected' : 'no answer'
      socket.destroy()
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#why ||= error.code ?? error.message
    })
    socket.on('data', (chunk: Buffer) => this.#onData(socket, chunk))
    socket.on('close', () => this.#onClose())
    const credential = this.#device === undefined ? `Authorization: Bearer ${token}\r\n` : ''
    socket.write(`${UPGRADE}${credential}\r\n`)
  }

  #onClose(): void {
    this.#socket = undefined
    const wasIn = this.#isIn
    this.#isIn = false
    if (wasIn) this.#events.onLost(this.#why || '1006')
    else this.#events.onTurnedAway(this.#why || 'closed')
    const seconds = BACKOFF_S[Math.min(this.#failures, BACKOFF_S.length - 1)] ?? 30
    this.#failures += 1
    this.#retry = setTimeout(() => this.#attempt(), seconds * 1000)
  }

  #onData(socket: Socket, chunk: Buffer): void {
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    if (this.#isUpgraded) return this.#readFrames(socket, bytes)
    const end = bytes.indexOf('\r\n\r\n')
    if (end === -1) {
      this.#held = bytes
      return
    }
    const status = bytes.toString('latin1', 9, 12)
    if (status !== '101') {
      this.#why = status
      socket.destroy()
      return
    }
    this.#isUpgraded = true
    if (this.#device === undefined) this.#enter(socket)
    this.#readFrames(socket, bytes.subarray(end + 4))
  }

  #enter(socket: Socket): void {
    socket.setTimeout(0)
    this.#isIn = true
    this.#failures = 0
    if (this.#events.onThrough()) return
    // It leaves for good and does not come back.
    socket.removeAllListeners('close')
    socket.destroy()
    this.#socket = undefined
    this.#isIn = false
  }

  #readFrames(socket: Socket, bytes: Buffer): void {
    let at = 0
    for (let frame = readFrame(bytes, at); frame !== undefined; frame = readFrame(bytes, at)) {
      this.#onFrame(socket, frame)
      at = frame.end
    }
    this.#held = at === bytes.length ? EMPTY : Buffer.from(bytes.subarray(at))
  }

  #onFrame(socket: Socket, { opcode, payload }: Frame): void {
    switch (opcode) {
      case PING:
        socket.write(frameOf(PONG, payload))
        return
      case CLOSE:
        this.#why ||= payload.length >= 2 ? String(payload.readUInt16BE(0)) : '1005'
        socket.end()
        return
      case TEXT:
        if (!this.#isIn) this.#converse(socket, payload)
        return
      case BINARY:
        this.#events.onEcho(performance.now() - (this.#sentAt.shift() ?? Number.NaN))
        return
      default:
      // A pong of the gateway, which the sidecar's ping has called for.
    }
  }

  /** A node answers the challenge, and is in with the hello. */
  #converse(socket: Socket, payload: Buffer): void {
    const message = JSON.parse(payload.toString()) as {
      readonly event?: string
      readonly ok?: boolean
      readonly payload?: { readonly nonce: string; readonly ts: number }
      readonly error?: { readonly details?: { readonly code?: string } }
    }
    if (message.event === 'connect.challenge' && this.#device !== undefined) {
      const { nonce = '', ts = 0 } = message.payload ?? {}
      const auth = { token: this.#worker.token }
      const frame = connectFrame(nonce, ts, { device: this.#device, auth })
      socket.write(frameOf(TEXT, Buffer.from(JSON.stringify(frame))))
    } else if (message.ok === true) this.#enter(socket)
    else if (message.ok === false) this.#why = message.error?.details?.code ?? 'refused'
  }
}

type Frame = { readonly opcode: number; readonly payload: Buffer; readonly end: number }

/** The frame that begins at `at`, if all of it is there; a server's is not masked. */
const readFrame = (bytes: Buffer, at: number): Frame | undefined => {
  if (bytes.length < at + 2) return undefined
  const short = bytes.readUInt8(at + 1)
  const head = short === 127 ? 10 : short === 126 ? 4 : 2
  if (bytes.length < at + head) return undefined
  const length =
    head === 10
      ? Number(bytes.readBigUInt64BE(at + 2))
      : head === 4
        ? bytes.readUInt16BE(at + 2)
        : short
  const end = at + head + length
  if (bytes.length < end) return undefined
  return { opcode: bytes.readUInt8(at) & 0xf, payload: bytes.subarray(at + head, end), end }
}

/** A worker's frame is masked, here by zeros, so that the payload stands as it is. */
const frameOf = (opcode: number, payload: Buffer): Buffer => {
  const isShort = payload.length < 126
  const head = Buffer.alloc(isShort ? 6 : 8)
  head.writeUInt8(0x80 | opcode, 0)
  head.writeUInt8(0x80 | (isShort ? payload.length : 126), 1)
  if (!isShort) head.writeUInt16BE(payload.length, 2)
  return Buffer.concat([head, payload])
}
