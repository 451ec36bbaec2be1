/** The API client: bounded requests with deadlines to the API server, under our own credential. */

import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Dispatcher } from 'undici'
import type { Clock } from '../lib/clock.ts'
import type { Code } from '../denial.ts'
import type { Network } from '../lib/network.ts'
import { Fault } from '../fault.ts'
import { withDeadline } from '../lib/deadline.ts'
import { messageOf } from '../lib/errors.ts'
import { isOutOfFiles, NO_FILES } from '../lib/open-files.ts'
import { Semaphore, type Release } from '../lib/semaphore.ts'
import { ClusterAgent } from './agents.ts'
import { targetOf } from './api-server.ts'
import { Breaker } from './breaker.ts'
import type { OwnCredentials } from './own-credentials.ts'

export type KubeClientOptions = {
  readonly apiServer: URL
  readonly credentials: OwnCredentials
  readonly clock: Clock
  readonly network?: Network | undefined
  /** Requests in flight at once, and connections kept open. */
  readonly concurrency: number
  /** Requests that may queue; one more is a fault at once. */
  readonly queue: number
  /**
   * How long a request may queue, in milliseconds; its deadline then starts when it leaves the
   * queue. Without `queueMs` the deadline includes the time in the queue.
   */
  readonly queueMs?: number
  /**
   * For callers that pace themselves and must not wait for one another: a request gives up its turn
   * after this time, in milliseconds, and goes on; failures open no circuit. The number of callers
   * then bounds the connections.
   */
  readonly turnMs?: number
  /** The code of this client's faults. */
  readonly faultCode: Code
  /** Called for each 401 and 403 that the API server gave us. */
  readonly onOwnCredentialRefused: (status: number) => void
}

export type KubeRequest = {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly body?: object
  /** For the whole request, the retry included, in milliseconds. See `queueMs`. */
  readonly deadlineMs: number
}

export type KubeAnswer = {
  readonly status: number
  readonly body: unknown
  /** The answer's `Date` header. */
  readonly date?: string | undefined
}

/** The longest answer, in bytes; a longer one is a fault. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024
/** The code of undici's error about it. */
const TOO_LARGE = 'UND_ERR_RES_EXCEEDED_MAX_SIZE'
/**
 * The share of the deadline for the first try: after a dead connection there is time for another.
 */
const FIRST_TRY_SHARE = 0.6
/** The API server serves its signing keys only under their own media type, and otherwise answers 406. */
const ACCEPTED = 'application/json, application/jwk-set+json'
const BREAKER_FAILURES = 5
const BREAKER_OPEN_MS = 1000

/** The answer is longer than `ANSWER_BYTES_MAX`: the same request would get the same answer. */
export class AnswerTooLarge extends Fault {}

/** What a reader of the log needs of a path. */
export const withoutQuery = (path: string): string => path.split('?', 1)[0] ?? path

const HINTS = {
  401: 'Check that its token is renewed, and is for this API server.',
  403: 'Its ServiceAccount lacks this right: check its Roles and ClusterRole.',
} as const

/** The API server answered 401 or 403 to our own credential. */
export class OwnCredentialRefused extends Fault {
  readonly status: 401 | 403

  constructor(status: 401 | 403, path: string) {
    super(
      'own_credential_refused',
      `The API server answered ${status} to the sidecar's own credential at ${withoutQuery(path)}. ${HINTS[status]}`,
    )
    this.status = status
  }
}

/** The API server answered, but with a status that is worth a second try. */
class UnexpectedStatus extends Error {}

export class KubeClient {
  readonly #options: KubeClientOptions
  readonly #semaphore: Semaphore
  readonly #breaker: Breaker
  /** Keeps its connections open. */
  readonly #pool: ClusterAgent
  /** Opens a new connection for each request: for the second try. */
  readonly #single: ClusterAgent
  #isRefused = false

  constructor(options: KubeClientOptions) {
    this.#options = options
    const { concurrency, credentials, faultCode, network, queue, turnMs } = options
    const common = { maxResponseSize: ANSWER_BYTES_MAX }
    this.#semaphore = new Semaphore(concurrency, queue)
    const to = { credentials, faultCode, network }
    this.#pool = new ClusterAgent({
      ...to,
      agent: { ...common, connections: turnMs === undefined ? concurrency : null, pipelining: 1 },
    })
    this.#single = new ClusterAgent({ ...to, agent: { ...common, pipelining: 0 } })
    this.#breaker = new Breaker({
      clock: options.clock,
      failuresMax: turnMs === undefined ? BREAKER_FAILURES : Infinity,
      openMs: BREAKER_OPEN_MS,
      isFailure: (error) => !(error instanceof Fault),
    })
  }

  /**
   * Resolves with a 2xx or 404 answer of the API server. Everything else throws a `Fault`: there is
   * no usable answer. With a `queueMs`, the wait has its own, longer deadline: a burst of requests
   * waits its turn, and each request still has its full time.
   */
  async request(request: KubeRequest): Promise<KubeAnswer> {
    const { clock, faultCode, queueMs, turnMs } = this.#options
    const { deadlineMs } = request
    const lateAfter = clock.monotonic() + deadlineMs * (1 - FIRST_TRY_SHARE)
    const run = async (release: Release, signal: AbortSignal) => {
      // A request that spent its deadline queueing proves nothing about the API server.
      const isTelling = queueMs !== undefined || clock.monotonic() <= lateAfter
      const cancelTurn = turnMs === undefined ? () => {} : clock.after(turnMs, release)
      try {
        return await this.#breaker.run(() => this.#tryTwice(request, signal), isTelling)
      } catch (error) {
        // A long queue that fails at once, behind an open breaker, must not stall all other work.
        await nextTurn()
        throw error
      } finally {
        cancelTurn()
        release()
      }
    }
    try {
      if (queueMs === undefined) {
        return await withDeadline(clock, deadlineMs, async (signal) =>
          run(await this.#semaphore.acquire(signal), signal),
        )
      }
      const release = await withDeadline(clock, queueMs, (signal) =>
        this.#semaphore.acquire(signal),
      )
      return await withDeadline(clock, deadlineMs, (signal) => run(release, signal))
    } catch (error) {
      if (error instanceof Fault) throw error
      throw new Fault(faultCode, describe(request, error), { cause: error })
    }
  }

  /** Whether the last answer was a 401 or 403 to our own credential. */
  get isRefused(): boolean {
    return this.#isRefused
  }

  async close(): Promise<void> {
    await Promise.all([this.#pool.close(), this.#single.close()])
  }

  async #tryTwice(request: KubeRequest, signal: AbortSignal): Promise<KubeAnswer> {
    const { clock } = this.#options
    signal.throwIfAborted()
    try {
      return await withDeadline(
        clock,
        request.deadlineMs * FIRST_TRY_SHARE,
        (first) => this.#send(request, this.#pool.get(), first),
        signal,
      )
    } catch (error) {
      if (error instanceof Fault || signal.aborted) throw error
      return this.#send(request, this.#single.get(), signal)
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
      ...targetOf(apiServer, request.path),
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
      this.#isRefused = false
      const { date } = answer.headers
      return { status, body: await this.#readBody(request, answer), date: date?.toString() }
    }
    await answer.body.dump({ limit: 65_536, signal })
    if (status === 401 || status === 403) return this.#onRefused(request, status, token, signal)
    throw new UnexpectedStatus(`HTTP ${status}`)
  }

  async #readBody(request: KubeRequest, { body }: Dispatcher.ResponseData): Promise<unknown> {
    try {
      return await body.json()
    } catch (error) {
      if ((error as { code?: unknown }).code !== TOO_LARGE) throw error
      const what = `The answer to ${request.method} ${request.path} exceeds ${ANSWER_BYTES_MAX} bytes.`
      throw new AnswerTooLarge(this.#options.faultCode, what, { cause: error })
    }
  }

  /** The API server rejected our credential; our token may have been rotated a moment ago. */
  #onRefused(
    request: KubeRequest,
    status: 401 | 403,
    token: string,
    signal: AbortSignal,
  ): Promise<KubeAnswer> {
    const { credentials } = this.#options
    if (credentials.isRotated(token)) {
      return this.#send(request, this.#pool.get(), signal)
    }
    this.#isRefused = true
    this.#options.onOwnCredentialRefused(status)
    throw new OwnCredentialRefused(status, request.path)
  }
}

function describe(request: KubeRequest, error: unknown): string {
  const reason = isOutOfFiles(error) ? NO_FILES : messageOf(error)
  return `${request.method} ${withoutQuery(request.path)} to the API server failed: ${reason}`
}
