/** A worker as a pod runs it: connects, sends, checks what comes back, and connects again. */

import { WebSocket } from 'ws'
import type { FakeClock } from '../kit/fake-clock.ts'
import type { SeededRandom } from '../kit/soak.ts'
import { createSpeaker, type Conversation } from './conversations.ts'
import type { SimNetwork } from './network.ts'
import type { Oracle } from './oracle.ts'
import type { Speech } from './schedule.ts'

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
  readonly oracle: Oracle
  readonly speech: Speech
  readonly workerPort: number
  /** The longest pause between two messages, in milliseconds. */
  readonly pauseMs: number
  readonly podUid: string
  readonly podName: string
  readonly readAddress: () => string
  readonly readToken: () => string
  readonly crime?: string
}

const BACKOFF_MS = 3000
const BACKOFF_MS_MAX = 40_000
/** A worker gives a handshake up after this time, as OpenClaw's node does. */
const HANDSHAKE_MS = 20_000
/** An answer that does not come within this time makes a worker connect again. */
const ANSWER_MS = 45_000
const LARGE_BYTES = 70_000

/** The code in the body of a refusal. */
const readCode = (text: string): string => /"type":"(\w+)"/.exec(text)?.[1] ?? ''

export class SimWorker {
  readonly options: SimWorkerOptions
  attempt: Attempt | undefined
  readonly #speak: () => Conversation
  #socket: WebSocket | undefined
  #talk: Conversation | undefined
  #cancel = () => {}
  #cancelAnswer = () => {}
  #isStopped = false
  #isIn = false
  #failures = 0
  #sent = 0
  #received = 0

  constructor(options: SimWorkerOptions) {
    this.options = options
    this.#speak = createSpeaker(options.speech)
  }

  /** Whether it is in, and nothing it has sent was left without an answer for too long. */
  get isServed(): boolean {
    return this.#isIn && this.#received > 0
  }

  start(): void {
    this.#later(this.#below(500), () => this.#connect())
  }

  /** The process is killed: the kernel closes its socket. */
  stop(): void {
    this.#isStopped = true
    this.#cancel()
    this.#cancelAnswer()
    this.#socket?.terminate()
  }

  #connect(): void {
    const { network, workerPort, podUid, crime, oracle, clock } = this.options
    const address = this.options.readAddress()
    const token = this.options.readToken()
    const attempt = oracle.began({ token, address, podUid, crime })
    this.attempt = attempt
    this.#sent = 0
    this.#received = 0
    const talk = this.#speak()
    this.#talk = talk
    const socket = new WebSocket('ws://sidecar.openclaw.svc/', {
      createConnection: () => network.dial({ port: workerPort }, address),
      headers: {
        'user-agent': `sim/${attempt.id}`,
        ...(talk.isAtUpgrade ? { authorization: `Bearer ${token}` } : {}),
      },
      perMessageDeflate: false,
    })
    this.#socket = socket
    const cancelHandshake = clock.after(HANDSHAKE_MS, () => socket.terminate())
    const enter = () => {
      cancelHandshake()
      this.#isIn = true
      this.#failures = 0
      attempt.openedAt = clock.monotonic()
      this.#say()
    }
    socket.on('error', () => {})
    socket.on('unexpected-response', (request, response) => {
      attempt.end = response.statusCode ?? 0
      response.on('data', (text: Buffer) => {
        oracle.toldWorker(text.toString())
        oracle.refused(attempt, readCode(text.toString()))
      })
      response.on('end', () => {
        request.destroy()
        socket.terminate()
      })
    })
    socket.on('open', () => {
      const first = talk.begin(token)
      if (first !== undefined) socket.send(first)
      if (talk.isInAtOnce) enter()
    })
    socket.on('message', (data: Buffer) => this.#hear(data, token, enter))
    socket.on('close', (code, reason) => {
      cancelHandshake()
      this.#isIn = false
      oracle.toldWorker(reason.toString())
      oracle.refused(attempt, reason.toString())
      attempt.closedAt = clock.monotonic()
      attempt.end ??= code
      this.#comeBack()
    })
  }

  #comeBack(): void {
    this.#cancel()
    this.#cancelAnswer()
    if (this.#isStopped) return
    this.#failures += 1
    const most = Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** this.#failures)
    this.#later(BACKOFF_MS + this.#below(most), () => this.#connect())
  }

  #hear(data: Buffer, token: string, enter: () => void): void {
    const read = this.#talk?.read(data, token)
    if (read === undefined) return
    if (read.say !== undefined) this.#socket?.send(read.say)
    const { heard } = read
    if (heard.kind === 'in') return enter()
    if (heard.kind === 'refused') this.options.oracle.toldWorker(data.toString())
    if (heard.kind === 'answer' || heard.kind === 'broken') this.#count(heard)
  }

  #count(heard: { readonly kind: 'broken' | 'answer'; readonly ordinal?: number }): void {
    const { oracle, podName } = this.options
    const { ordinal = -1 } = heard
    if (ordinal !== this.#received || ordinal >= this.#sent) {
      oracle.fail(`${podName} got message ${ordinal} where ${this.#received} was due`)
    }
    this.#received += 1
    this.#cancelAnswer()
    if (this.#received < this.#sent) this.#awaitAnswer()
  }

  #say(): void {
    if (this.#socket?.readyState !== WebSocket.OPEN || !this.#isIn) return
    const size = this.options.random.next() < 0.005 ? LARGE_BYTES : 4 + this.#below(600)
    const message = this.#talk?.write(this.#sent, size)
    if (message === undefined) return
    this.#socket.send(message)
    this.#sent += 1
    if (this.#received === this.#sent - 1) this.#awaitAnswer()
    this.#later(200 + this.#below(this.options.pauseMs), () => this.#say())
  }

  #awaitAnswer(): void {
    this.#cancelAnswer = this.options.clock.after(ANSWER_MS, () => {
      if (this.attempt !== undefined) this.options.oracle.waitedInVain(this.attempt)
      this.#socket?.terminate()
    })
  }

  #later(ms: number, run: () => void): void {
    this.#cancel = this.options.clock.after(ms, run)
  }

  #below(most: number): number {
    return Math.floor(this.options.random.next() * most)
  }
}
