/** The gateway's side of one OpenClaw protocol v4 connection. */

import type { StubClock } from './clock.ts'
import type { StubConnection } from './connection.ts'
import type { Dialogue } from './dialogue.ts'
import { type AuthMode, judgeConnect, PROTOCOLS } from './openclaw-connect.ts'
import type { ConnectRefusal, Protocols } from './openclaw-connect.ts'
import { parseJson, readConnect, readRequest } from './openclaw-frames.ts'
import type { Connect, Fields, RequestFrame } from './openclaw-frames.ts'

/** Answers a request of a connected peer with a payload, or its promise; a throw becomes an error answer. */
export type Method = (params: Fields, connection: StubConnection) => unknown

/** Why a `connect` with a valid proof and secret is still refused; `undefined` lets it in. */
export type Pair = (
  connect: Connect,
  params: Fields,
  connection: StubConnection,
) => ConnectRefusal | undefined

export type SessionTerms = {
  readonly token?: string
  readonly authMode?: AuthMode
  readonly bootstrapTokens: Set<string>
  readonly methods: Readonly<Record<string, Method>>
  readonly pair?: Pair
  readonly unknownFields: readonly string[]
  readonly protocols?: Protocols
  readonly messageBytesMax: number
  readonly clock: StubClock
  readonly randomId: () => string
  /** Runs once the hello is sent. */
  readonly onReady: () => void
}

export type InvokeResult = {
  readonly ok: boolean
  /** The parsed `payloadJSON`, if there was one. */
  readonly payload: unknown
  readonly error: unknown
}

type Invocation = {
  readonly resolve: (result: InvokeResult) => void
  readonly reject: (cause: Error) => void
  readonly stopTimer: () => void
}

const HANDSHAKE_MS_MAX = 15_000
const HANDSHAKE_BYTES_MAX = 65_536
const INVOCATIONS_MAX = 10_000
const CLOSE_REASON_MAX = 120

/** What a node may call; the rest is the operators'. */
const NODE_METHODS: Readonly<Record<string, Method>> = {
  'node.event': (params) => ({
    ok: true,
    event: params['event'],
    handled: true,
    reason: 'updated',
  }),
  'node.runnerInventory.update': () => ({}),
  'node.skills.update': () => ({ skills: [] }),
  'node.pluginTools.update': () => ({ tools: [] }),
}

export class OpenClawSession implements Dialogue {
  readonly #connection: StubConnection
  readonly #terms: SessionTerms
  readonly #nonce: string
  readonly #stopHandshakeTimer: () => void
  readonly #invocations = new Map<string, Invocation>()
  #state: 'challenged' | 'ready' | 'over' = 'challenged'
  #connect: Connect | undefined

  /** Sends the challenge at once. */
  constructor(connection: StubConnection, terms: SessionTerms) {
    this.#connection = connection
    this.#terms = terms
    this.#nonce = terms.randomId()
    this.#stopHandshakeTimer = terms.clock.after(HANDSHAKE_MS_MAX, () => {
      this.#leave(1008, 'handshake timeout')
    })
    this.#event('connect.challenge', {
      nonce: this.#nonce,
      ts: terms.clock.now(),
      capabilities: [],
    })
  }

  get isReady(): boolean {
    return this.#state === 'ready'
  }

  receive(message: Buffer, isBinary: boolean): void {
    if (this.#state === 'over') return
    if (this.#state === 'challenged' && message.length > HANDSHAKE_BYTES_MAX) {
      return this.#leave(1009, 'handshake frame too large')
    }
    const request = isBinary ? undefined : readRequest(message)
    if (request === undefined) return this.#leave(1008, 'invalid request frame')
    if (this.#state === 'challenged') return this.#admit(request)
    this.#answer(request)
  }

  end(): void {
    this.#state = 'over'
    this.#stopHandshakeTimer()
    for (const { reject, stopTimer } of this.#invocations.values()) {
      stopTimer()
      reject(new Error('the connection closed before the result came'))
    }
    this.#invocations.clear()
  }

  tick(): void {
    if (this.isReady) this.#event('tick', { ts: this.#terms.clock.now() })
  }

  invoke(command: string, params: unknown, timeoutMs: number): Promise<InvokeResult> {
    if (!this.isReady) return Promise.reject(new Error('the connection has not said hello yet'))
    if (this.#invocations.size >= INVOCATIONS_MAX) {
      return Promise.reject(new Error('too many invocations under way'))
    }
    const id = this.#terms.randomId()
    const { promise, resolve, reject } = Promise.withResolvers<InvokeResult>()
    const stopTimer = this.#terms.clock.after(timeoutMs, () => {
      this.#invocations.delete(id)
      reject(new Error(`no result of ${command} within ${timeoutMs} ms`))
    })
    this.#invocations.set(id, { resolve, reject, stopTimer })
    this.#event('node.invoke.request', {
      id,
      nodeId: this.#connect?.device?.id,
      command,
      paramsJSON: JSON.stringify(params),
      timeoutMs,
      idempotencyKey: this.#terms.randomId(),
    })
    return promise
  }

  #admit(request: RequestFrame): void {
    if (request.method !== 'connect') {
      const message = 'the first request must be connect'
      return this.#refuse(request.id, { code: 'INVALID_HANDSHAKE', message })
    }
    const connect = readConnect(request.params)
    if (connect === undefined) {
      const message = 'invalid connect params'
      return this.#refuse(request.id, { code: 'INVALID_HANDSHAKE', message })
    }
    const unexpected = findUnexpected(request.params, this.#terms.unknownFields)
    if (unexpected !== undefined) {
      const message = `invalid connect params: ${unexpected}`
      this.#fail(request.id, message)
      return this.#leave(1008, message.slice(0, CLOSE_REASON_MAX))
    }
    const { clock, token, authMode, bootstrapTokens, protocols } = this.#terms
    const now = clock.now()
    const terms = { nonce: this.#nonce, now, token, authMode, bootstrapTokens, protocols }
    const verdict = judgeConnect(connect, terms)
    if (!verdict.ok) return this.#refuse(request.id, verdict.refusal)
    const objection = this.#terms.pair?.(connect, request.params, this.#connection)
    if (objection !== undefined) return this.#refuse(request.id, objection)
    this.#stopHandshakeTimer()
    this.#connect = connect
    this.#state = 'ready'
    this.#succeed(request.id, this.#hello(connect, verdict.method))
    this.#terms.onReady()
  }

  /** The device tokens show that a proxy drops them. */
  #hello({ role, scopes }: Connect, method: string): Fields {
    const { randomId, clock, messageBytesMax } = this.#terms
    const issuedAtMs = clock.now()
    const deviceToken = randomId()
    return {
      type: 'hello-ok',
      protocol: (this.#terms.protocols ?? PROTOCOLS).spoken,
      server: { version: 'gateway-stub', connId: randomId() },
      features: { methods: [], events: ['tick', 'node.invoke.request'], capabilities: [] },
      snapshot: {},
      auth: {
        method,
        role,
        scopes,
        deviceToken,
        issuedAtMs,
        deviceTokens: [{ deviceToken, role, scopes, issuedAtMs }],
      },
      policy: {
        maxPayload: messageBytesMax,
        maxBufferedBytes: 2 * messageBytesMax,
        tickIntervalMs: 30_000,
      },
    }
  }

  #answer({ id, method, params }: RequestFrame): void {
    if (method === 'connect') {
      return this.#fail(id, 'connect is only valid as the first request')
    }
    if (method === 'node.invoke.result') {
      this.#settle(params)
      return this.#succeed(id, { ok: true })
    }
    const role = this.#connect?.role ?? ''
    const methods = role === 'node' ? NODE_METHODS : this.#terms.methods
    if (!Object.hasOwn(methods, method)) {
      const isForbidden = role === 'node'
      return this.#fail(id, isForbidden ? `unauthorized role: ${role}` : 'unknown method')
    }
    try {
      const payload = methods[method]?.(params, this.#connection)
      if (payload instanceof Promise) void this.#answerLater(id, payload)
      else this.#succeed(id, payload)
    } catch (cause) {
      this.#fail(id, cause instanceof Error ? cause.message : 'failed')
    }
  }

  async #answerLater(id: string, payload: Promise<unknown>): Promise<void> {
    try {
      this.#succeed(id, await payload)
    } catch (cause) {
      this.#fail(id, cause instanceof Error ? cause.message : 'failed')
    }
  }

  #settle(params: Fields): void {
    const id = String(params['id'])
    const invocation = this.#invocations.get(id)
    if (invocation === undefined) return
    this.#invocations.delete(id)
    invocation.stopTimer()
    const { payloadJSON, error } = params
    const payload = typeof payloadJSON === 'string' ? parseJson(payloadJSON) : undefined
    invocation.resolve({ ok: params['ok'] === true, payload, error })
  }

  #refuse(id: string, refusal: ConnectRefusal): void {
    const { code, message, closeCode = 1008 } = refusal
    const details = { code, canRetryWithDeviceToken: false, ...refusal.details }
    this.#fail(id, message, details)
    this.#leave(closeCode, message)
  }

  #leave(code: number, reason: string): void {
    this.#state = 'over'
    this.#stopHandshakeTimer()
    this.#connection.close(code, reason)
  }

  #event(event: string, payload: Fields): void {
    this.#send({ type: 'event', event, payload })
  }

  #succeed(id: string, payload: unknown): void {
    this.#send({ type: 'res', id, ok: true, payload })
  }

  #fail(id: string, message: string, details?: Fields): void {
    this.#send({ type: 'res', id, ok: false, error: { code: 'INVALID_REQUEST', message, details } })
  }

  #send(frame: Fields): void {
    this.#connection.send(JSON.stringify(frame))
  }
}

/** In the words of the gateway, which names one field of each object at a time. */
function findUnexpected(params: Fields, unknown: readonly string[]): string | undefined {
  const client = params['client'] as Fields | undefined
  const places = [
    { at: 'root', members: params, prefix: '' },
    { at: '/client', members: client ?? {}, prefix: 'client.' },
  ]
  const found = places.flatMap(({ at, members, prefix }) => {
    const name = Object.keys(members).find((member) => unknown.includes(`${prefix}${member}`))
    return name === undefined ? [] : [`at ${at}: unexpected property '${name}'`]
  })
  return found.length === 0 ? undefined : found.join('; ')
}
