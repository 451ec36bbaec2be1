/** A worker as a pod runs it: connects, sends, checks what comes back, and connects again. */

import { WebSocket } from 'ws'
import type { FakeClock } from '../kit/fake-clock.ts'
import type { SeededRandom } from '../kit/soak.ts'
import type { SimNetwork } from './network.ts'

/** One connection that somebody tries, and all the oracle has to know of it. */
export type Attempt = {
  readonly id: number
  readonly token: string
  readonly address: string
  readonly podUid: string
  /** Why it must never be let in; `undefined` for an honest one. */
  readonly crime: string | undefined
  /** On the monotonic clock, in milliseconds. */
  readonly startedAt: number
  openedAt?: number
  closedAt?: number
  /** What it got in the end: a status, or the code of a close frame. */
  end?: number
}

export type SimWorkerOptions = {
  readonly clock: FakeClock
  readonly random: SeededRandom
  readonly network: SimNetwork
  readonly workerPort: number
  readonly podUid: string
  readonly podName: string
  readonly readAddress: () => string
  readonly readToken: () => string
  readonly crime?: string
  readonly createAttempt: (attempt: Omit<Attempt, 'id' | 'startedAt'>) => Attempt
  /** A promise about bytes was broken. */
  readonly onBroken: (problem: string) => void
}

const BACKOFF_MS = 1000
const BACKOFF_MS_MAX = 15_000
const PAUSE_MS = 20_000
/** The bytes of a message are its ordinal modulo this. */
const FILLS = 251
const LARGE_BYTES = 70_000
/** A worker gives a handshake up after this time, as OpenClaw's node does. */
const HANDSHAKE_MS = 20_000

const isFilled = (bytes: Buffer, fill: number): boolean =>
  bytes.length === 0 ||
  (bytes[0] === fill && bytes.subarray(1).equals(bytes.subarray(0, bytes.length - 1)))

export class SimWorker {
  readonly options: SimWorkerOptions
  attempt: Attempt | undefined
  #socket: WebSocket | undefined
  #cancel = () => {}
  #isStopped = false
  #failures = 0
  #sent = 0
  #received = 0

  constructor(options: SimWorkerOptions) {
    this.options = options
  }

  get isOpen(): boolean {
    return this.#socket?.readyState === WebSocket.OPEN
  }

  start(): void {
    this.#later(this.#below(500), () => this.#connect())
  }

  /** The process is killed: the kernel closes its socket. */
  stop(): void {
    this.#isStopped = true
    this.#cancel()
    this.#socket?.terminate()
  }

  #connect(): void {
    const { network, workerPort, podUid, crime, createAttempt, clock } = this.options
    const address = this.options.readAddress()
    const token = this.options.readToken()
    const attempt = createAttempt({ token, address, podUid, crime })
    this.attempt = attempt
    this.#sent = 0
    this.#received = 0
    const socket = new WebSocket('ws://sidecar.openclaw.svc/', {
      createConnection: () => network.dial({ port: workerPort }, address),
      headers: { authorization: `Bearer ${token}`, 'user-agent': `sim/${attempt.id}` },
      perMessageDeflate: false,
    })
    this.#socket = socket
    const cancelHandshake = clock.after(HANDSHAKE_MS, () => socket.terminate())
    socket.on('error', () => {})
    socket.on('unexpected-response', (request, response) => {
      attempt.end = response.statusCode ?? 0
      request.destroy()
      socket.terminate()
    })
    socket.on('open', () => {
      cancelHandshake()
      this.#failures = 0
      attempt.openedAt = clock.monotonic()
      this.#talk()
    })
    socket.on('message', (data: Buffer) => this.#read(data))
    socket.on('close', (code) => {
      cancelHandshake()
      attempt.closedAt = clock.monotonic()
      attempt.end ??= code
      this.#comeBack()
    })
  }

  #comeBack(): void {
    this.#cancel()
    if (this.#isStopped) return
    this.#failures += 1
    const most = Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** this.#failures)
    this.#later(BACKOFF_MS + this.#below(most), () => this.#connect())
  }

  /** The gateway sends back what it gets. */
  #talk(): void {
    if (!this.isOpen) return
    const size = this.options.random.next() < 0.005 ? LARGE_BYTES : 4 + this.#below(600)
    const message = Buffer.alloc(size, this.#sent % FILLS)
    message.writeUInt32BE(this.#sent)
    this.#sent += 1
    this.#socket?.send(message)
    this.#later(200 + this.#below(PAUSE_MS), () => this.#talk())
  }

  #read(data: Buffer): void {
    const ordinal = data.length < 4 ? -1 : data.readUInt32BE()
    const isRight = ordinal === this.#received && isFilled(data.subarray(4), ordinal % FILLS)
    if (!isRight || ordinal >= this.#sent) {
      this.options.onBroken(
        `${this.options.podName} got message ${ordinal} where ${this.#received} was due`,
      )
    }
    this.#received += 1
  }

  #later(ms: number, run: () => void): void {
    this.#cancel = this.options.clock.after(ms, run)
  }

  #below(most: number): number {
    return Math.floor(this.options.random.next() * most)
  }
}
