/** The API client: bounded, deadlined requests to the API server under our own credential. */

import { setImmediate as nextTurn } from 'node:timers/promises'
import { bulkhead, BulkheadRejectedError, type BulkheadPolicy } from 'cockatiel'
import { Agent, type Dispatcher } from 'undici'
import type { Clock } from '../clock.ts'
import type { Code } from '../denial.ts'
import { Fault } from '../fault.ts'
import { withDeadline } from '../deadline.ts'
import { Breaker } from './breaker.ts'
import type { OwnCredentials } from './own-credentials.ts'

export type KubeClientOptions = {
  readonly apiServer: URL
  readonly credentials: OwnCredentials
  readonly clock: Clock
  /** Requests under way at once, and connections kept open. */
  readonly concurrency: number
  /** Requests that may wait for a place; one more is a fault at once. */
  readonly queue: number
  /**
   * How long a request may wait for its place, in milliseconds: its deadline then counts from there.
   * Without it the wait is part of the deadline.
   */
  readonly queueMs?: number
  /** What a fault of this client is called. */
  readonly faultCode: Code
  /** Told of each 401 and 403 the API server gave us. */
  readonly onOwnCredentialRefused: (status: number) => void
}

export type KubeRequest = {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly body?: object
  /** For the whole of it, the retry included, in milliseconds. See `queueMs`. */
  readonly deadlineMs: number
}

export type KubeAnswer = {
  readonly status: number
  readonly body: unknown
  /** When the API server says it answered. */
  readonly date?: string | undefined
}

/** An answer longer than this is a fault, in bytes. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024
/** The share of the deadline the first try may use, so that a dead connection leaves time for another. */
const FIRST_TRY_SHARE = 0.6
/** The API server serves its signing keys only under their own media type, and otherwise answers 406. */
const ACCEPTED = 'application/json, application/jwk-set+json'
const BREAKER_FAILURES = 5
const BREAKER_OPEN_MS = 1000

/** The API server answered, but with something that is worth a second try. */
class Unfit extends Error {}

export class KubeClient {
  readonly #options: KubeClientOptions
  readonly #bulkhead: BulkheadPolicy
  readonly #breaker: Breaker
  #kept: { readonly ca: string; readonly pool: Agent; readonly single: Agent } | undefined

  constructor(options: KubeClientOptions) {
    this.#options = options
    this.#bulkhead = bulkhead(options.concurrency, options.queue)
    this.#breaker = new Breaker({
      clock: options.clock,
      failuresMax: BREAKER_FAILURES,
      openMs: BREAKER_OPEN_MS,
      isFailure: (error) => !(error instanceof Fault),
    })
  }

  /**
   * Resolves with the API server's 2xx or 404 answer. Everything else throws a `Fault`: there is
   * no verdict. HTTP/1.1 only: an early 401 resets an HTTP/2 stream and loses the body.
   */
  async request(request: KubeRequest): Promise<KubeAnswer> {
    const { clock, faultCode, queueMs } = this.#options
    const { deadlineMs } = request
    const lateAfter = clock.monotonic() + deadlineMs * (1 - FIRST_TRY_SHARE)
    const run = async (leave: () => void, signal: AbortSignal) => {
      // A request that spent its deadline queueing proves nothing about the API server.
      const isTelling = queueMs !== undefined || clock.monotonic() <= lateAfter
      try {
        return await this.#breaker.run(() => this.#tryTwice(request, signal), isTelling)
      } catch (error) {
        // A long queue that fails at once, behind an open breaker, must not stall all other work.
        await nextTurn()
        throw error
      } finally {
        leave()
      }
    }
    try {
      if (queueMs === undefined) {
        return await withDeadline(clock, deadlineMs, async (signal) =>
          run(await this.#takePlace(signal), signal),
        )
      }
      const leave = await withDeadline(clock, queueMs, (signal) => this.#takePlace(signal))
      return await withDeadline(clock, deadlineMs, (signal) => run(leave, signal))
    } catch (error) {
      if (error instanceof Fault) throw error
      throw new Fault(faultCode, describe(request, error), { cause: error })
    }
  }

  async close(): Promise<void> {
    await this.#kept?.pool.destroy()
    await this.#kept?.single.destroy()
  }

  /** Waits for a place among the requests under way; what it resolves with gives the place back. */
  #takePlace(signal: AbortSignal): Promise<() => void> {
    const { promise, resolve, reject } = Promise.withResolvers<() => void>()
    const stay = () => new Promise<void>((leave) => resolve(leave))
    this.#bulkhead.execute(stay, signal).catch(reject)
    return promise
  }

  async #tryTwice(request: KubeRequest, signal: AbortSignal): Promise<KubeAnswer> {
    const { clock } = this.#options
    signal.throwIfAborted()
    try {
      return await withDeadline(
        clock,
        request.deadlineMs * FIRST_TRY_SHARE,
        (first) => this.#send(request, this.#agents().pool, first),
        signal,
      )
    } catch (error) {
      if (error instanceof Fault || signal.aborted) throw error
      return this.#send(request, this.#agents().single, signal)
    }
  }

  async #send(
    request: KubeRequest,
    dispatcher: Dispatcher,
    signal: AbortSignal,
  ): Promise<KubeAnswer> {
    const { apiServer, credentials } = this.#options
    const token = credentials.token
    const answer = await dispatcher.request({
      origin: apiServer.origin,
      path: request.path,
      method: request.method,
      headers: {
        accept: ACCEPTED,
        authorization: `Bearer ${token}`,
        'user-agent': 'openclaw-auth-sidecar',
        ...(request.body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body: request.body === undefined ? null : JSON.stringify(request.body),
      signal,
    })
    const { statusCode: status } = answer
    if ((status >= 200 && status < 300) || status === 404) {
      const { date } = answer.headers
      return { status, body: await answer.body.json(), date: date?.toString() }
    }
    await answer.body.dump({ limit: 65_536, signal })
    if (status === 401 || status === 403) return this.#onRefused(request, status, token, signal)
    throw new Unfit(`HTTP ${status}`)
  }

  /** The API server does not know us: perhaps our token was rotated a moment ago. */
  #onRefused(
    request: KubeRequest,
    status: number,
    token: string,
    signal: AbortSignal,
  ): Promise<KubeAnswer> {
    const { credentials } = this.#options
    if (credentials.token !== token || credentials.reread()) {
      return this.#send(request, this.#agents().pool, signal)
    }
    this.#options.onOwnCredentialRefused(status)
    throw new Fault(
      'own_credential_refused',
      `The API server answered ${status} to the sidecar's own credential at ${request.path}.`,
    )
  }

  /** New connections are made after the CA was rotated. */
  #agents() {
    const { ca } = this.#options.credentials
    if (this.#kept?.ca === ca) return this.#kept
    // Without one, Node would trust every public authority.
    if (ca === '')
      throw new Fault(this.#options.faultCode, 'The CA file of the API server is missing or empty.')
    const old = this.#kept
    const common = {
      connect: { ca, allowH2: false },
      allowH2: false,
      maxResponseSize: ANSWER_BYTES_MAX,
      // The deadlines above are the only ones: these would count from another start.
      headersTimeout: 0,
      bodyTimeout: 0,
    }
    this.#kept = {
      ca,
      pool: new Agent({ ...common, connections: this.#options.concurrency, pipelining: 1 }),
      single: new Agent({ ...common, pipelining: 0 }),
    }
    for (const agent of [old?.pool, old?.single]) agent?.close().catch(() => {})
    return this.#kept
  }
}

function describe(request: KubeRequest, error: unknown): string {
  const reason =
    error instanceof BulkheadRejectedError
      ? 'too many requests are waiting'
      : error instanceof Error
        ? error.message || error.name
        : String(error)
  return `${request.method} ${request.path} to the API server failed: ${reason}`
}
