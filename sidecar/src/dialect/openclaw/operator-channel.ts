/** The operator channel: one permanent loopback connection to the gateway, as its operator. */

import { randomUUID } from 'node:crypto'
import { Backoff } from '../../lib/backoff.ts'
import type { Clock } from '../../lib/clock.ts'
import type { Network } from '../../lib/network.ts'
import { Fault } from '../../fault.ts'
import { GatewayRefused, type GatewayRefusal } from '../../gateway-refusal.ts'
import { readEvent, readResponse, type EventFrame } from './frames.ts'
import type { GatewayAuth } from './gateway-connect.ts'
import { openOperatorSocket, type OperatorSocket } from './operator-socket.ts'

export type OperatorChannelOptions = {
  readonly url: URL
  /** The gateway's secret, read again for every connection. May throw. */
  readonly readAuth: () => GatewayAuth
  readonly network?: Network | undefined
  readonly version: string
  readonly clock: Clock
  /** From 0 to 1. */
  readonly random: () => number
  readonly messageBytesMax: number
  /** Called with the capabilities of the gateway's challenge. */
  readonly onReady: (capabilities: readonly string[]) => void
  /**
   * The channel is down, or could not be opened. Called once for each new reason until it is up
   * again, and for a few reasons only.
   */
  readonly onDown: (error: Error) => void
  /** The gateway refused a connection. Called each time. */
  readonly onRefused: (refusal: GatewayRefusal) => void
  readonly onEvent: (event: EventFrame) => void
}

/** The gateway refused a call. */
export class CallRefused extends Error {
  readonly code: string

  constructor(method: string, code: string, message: string) {
    super(`${method}: ${code} ${message}`)
    this.name = 'CallRefused'
    this.code = code
  }
}

const DOWN = 'the operator channel is down'
const BACKOFF_MS_MIN = 100
const BACKOFF_MS_MAX = 2000
const CALL_MS_MAX = 5000
const CALLS_MAX = 1024
/** The most reasons for one outage that are told. */
const REASONS_MAX = 4
/** The gateway ticks every 30 s; one that missed two is gone. */
const SILENCE_MS_MAX = 75_000

type Call = {
  readonly frame: { readonly id: string; readonly method: string; readonly params: object }
  readonly resolve: (payload: unknown) => void
  readonly reject: (error: Error) => void
}

export class OperatorChannel {
  readonly #options: OperatorChannelOptions
  /** Calls that were sent, and those that wait for the channel, in order. */
  readonly #calls = new Map<string, Call>()
  #socket: OperatorSocket | undefined
  #isReady = false
  #isStopped = false
  readonly #backoff: Backoff
  readonly #reasons = new Set<string>()
  #objection = DOWN
  #cancelTimer = () => {}

  constructor(options: OperatorChannelOptions) {
    this.#options = options
    this.#backoff = new Backoff({
      minMs: BACKOFF_MS_MIN,
      maxMs: BACKOFF_MS_MAX,
      random: options.random,
    })
  }

  get isReady(): boolean {
    return this.#isReady
  }

  /** Why workers cannot be admitted now, as a sentence. */
  findObjection(): string | undefined {
    return this.#isReady ? undefined : this.#objection
  }

  start(): void {
    this.#connect()
  }

  stop(): void {
    this.#isStopped = true
    this.#cancelTimer()
    this.#socket?.destroy()
    this.#rejectAll(unavailable('the operator channel has stopped'))
  }

  /**
   * Calls the gateway, once the channel is up. Throws a `Fault` when there was no answer in time,
   * and `CallRefused` when the gateway refuses.
   */
  call(method: string, params: object = {}): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    if (this.#isStopped || this.#calls.size >= CALLS_MAX) {
      reject(unavailable(`${method} was not called: too many calls, or the channel has stopped`))
      return promise
    }
    const id = randomUUID()
    const settle = () => {
      this.#calls.delete(id)
      cancel()
    }
    const call: Call = {
      frame: { id, method, params },
      resolve(payload) {
        settle()
        resolve(payload)
      },
      reject(error) {
        settle()
        reject(error)
      },
    }
    const cancel = this.#options.clock.after(CALL_MS_MAX, () =>
      call.reject(unavailable(`${method} was not answered within ${CALL_MS_MAX} ms`)),
    )
    this.#calls.set(id, call)
    if (this.#isReady) this.#send(call)
    return promise
  }

  #connect(): void {
    const { clock, messageBytesMax, network, readAuth, url, version } = this.#options
    let auth: GatewayAuth
    try {
      auth = readAuth()
    } catch (cause) {
      const what = "gateway.auth.secretFile: the gateway's secret cannot be read"
      return this.#onDown(new Fault('operator_unavailable', what, { cause }))
    }
    this.#socket = openOperatorSocket({
      url,
      auth,
      clock,
      network,
      version,
      messageBytesMax,
      onHello: (capabilities) => this.#onHello(capabilities),
      onMessage: (text) => this.#onMessage(text),
      onDown: (error) => this.#onDown(error),
    })
  }

  #onHello(capabilities: readonly string[]): void {
    this.#isReady = true
    this.#objection = DOWN
    this.#backoff.reset()
    this.#reasons.clear()
    this.#watchSilence()
    // What is called from `onReady` is sent at once: only what waited until now is sent here.
    const waiting = [...this.#calls.values()]
    // First, so that what the gateway answers is not forgotten.
    this.#options.onReady(capabilities)
    for (const call of waiting) this.#send(call)
  }

  #onMessage(text: string): void {
    this.#watchSilence()
    const response = readResponse(text)
    if (response === undefined) {
      const event = readEvent(text)
      if (event !== undefined) this.#options.onEvent(event)
      return
    }
    const call = this.#calls.get(response.id)
    if (call === undefined) return
    if (response.ok) return call.resolve(response.payload)
    const { code = 'UNKNOWN', message = '' } = response.error ?? {}
    call.reject(new CallRefused(call.frame.method, code, message))
  }

  #onDown(error: Error): void {
    this.#cancelTimer()
    if (this.#isStopped) return
    // A call that was sent may or may not have been executed: the caller decides, not the channel.
    if (this.#isReady) this.#rejectAll(unavailable('the operator channel was disconnected'))
    if (error instanceof GatewayRefused) this.#options.onRefused(error.refusal)
    this.#objection = error instanceof Fault ? error.message : DOWN
    this.#isReady = false
    this.#socket = undefined
    const isNew = !this.#reasons.has(error.message) && this.#reasons.size < REASONS_MAX
    if (isNew) {
      this.#reasons.add(error.message)
      this.#options.onDown(error)
    }
    this.#cancelTimer = this.#options.clock.after(this.#backoff.next(), () => this.#connect())
  }

  #watchSilence(): void {
    this.#cancelTimer()
    this.#cancelTimer = this.#options.clock.after(SILENCE_MS_MAX, () =>
      this.#socket?.destroy(new Error(`the gateway sent nothing for ${SILENCE_MS_MAX} ms`)),
    )
  }

  #send({ frame }: Call): void {
    this.#socket?.send(JSON.stringify({ type: 'req', ...frame }))
  }

  #rejectAll(error: Error): void {
    for (const call of this.#calls.values()) call.reject(error)
  }
}

const unavailable = (message: string): Fault => new Fault('operator_unavailable', message)
