/** One open watch: the events of a Kubernetes watch request, line by line, until it ends. */

import type { Clock } from '../lib/clock.ts'
import { Fault } from '../fault.ts'
import type { Network } from '../lib/network.ts'
import { ClusterAgent } from './agents.ts'
import { targetOf } from './api-server.ts'
import { OwnCredentialRefused, withoutQuery } from './client.ts'
import type { OwnCredentials } from './own-credentials.ts'

/** One line of a watch (Kubernetes API concepts, "Efficient detection of changes"). */
export type WatchEvent = { readonly type: string; readonly object: unknown }

export type WatchClientOptions = {
  readonly apiServer: URL
  readonly credentials: OwnCredentials
  readonly clock: Clock
  readonly network?: Network | undefined
  readonly onOwnCredentialRefused: (status: number) => void
}

export type OpenWatch = {
  readonly path: string
  /** Ends the watch at any point. */
  readonly signal: AbortSignal
  /** The API server accepted the request; events may follow. */
  readonly onOpen: () => void
}

/** The longest line, in bytes: above etcd's limit for an object, doubled for its JSON. */
const LINE_BYTES_MAX = 4 * 1024 * 1024
/** How long the API server may take to answer the request, in milliseconds. */
const OPEN_DEADLINE_MS = 10_000
const KEEP_ALIVE_DELAY_MS = 5000
const NEWLINE = 0x0a

/** Watches use separate connections; only the caller's signal ends them. */
export class WatchClient {
  readonly #options: WatchClientOptions
  readonly #agent: ClusterAgent

  constructor(options: WatchClientOptions) {
    this.#options = options
    this.#agent = new ClusterAgent({
      credentials: options.credentials,
      network: options.network,
      faultCode: 'pod_unconfirmed',
      agent: { pipelining: 0 },
      connect: { keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS },
    })
  }

  /** Yields events until the API server ends the watch; throws on any other end. */
  async *open({ path, signal, onOpen }: OpenWatch): AsyncGenerator<WatchEvent> {
    const { apiServer, credentials, clock, onOwnCredentialRefused } = this.#options
    const opening = new AbortController()
    const cancel = clock.after(OPEN_DEADLINE_MS, () =>
      opening.abort(new Error(`no answer within ${OPEN_DEADLINE_MS} ms`)),
    )
    const token = credentials.token
    const answer = await this.#agent
      .get()
      .request({
        ...targetOf(apiServer, path),
        method: 'GET',
        headers: {
          accept: 'application/json',
          authorization: `Bearer ${token}`,
          'user-agent': 'openclaw-auth-sidecar',
        },
        signal: AbortSignal.any([signal, opening.signal]),
      })
      .finally(cancel)
    const { statusCode: status, body } = answer
    if (status !== 200) {
      body.on('error', () => {}).destroy()
      if (status === 410) throw new RelistNeeded()
      // If the token was rotated meanwhile, the next watch uses the new one.
      const isRotated = status === 401 && credentials.isRotated(token)
      if (!isRotated && (status === 401 || status === 403)) onOwnCredentialRefused(status)
      if (status === 401 || status === 403) throw new OwnCredentialRefused(status, path)
      throw new Fault('pod_unconfirmed', `GET ${withoutQuery(path)} answered ${status}.`)
    }
    onOpen()
    yield* readEvents(inWords(body, signal))
  }

  async close(): Promise<void> {
    await this.#agent.close()
  }
}

async function* inWords(body: AsyncIterable<Buffer>, signal: AbortSignal): AsyncIterable<Buffer> {
  try {
    yield* body
  } catch (error) {
    throw signal.aborted ? error : brokenBy(error as { readonly code?: string })
  }
}

/** Without its cause, whose words are those of a parser. */
function brokenBy({ code }: { readonly code?: string }): Error {
  const why = code === undefined || code.startsWith('HPE_') ? '' : ` (${code})`
  return new Error(
    `the connection of the watch broke${why}: the API server, or a proxy before it, ended it`,
  )
}

/** The watch cannot continue from its version: list again. */
export class RelistNeeded extends Error {
  constructor(message = 'the resource version is too old', options?: ErrorOptions) {
    super(message, options)
    this.name = 'RelistNeeded'
  }
}

async function* readEvents(body: AsyncIterable<Buffer>): AsyncGenerator<WatchEvent> {
  let parts: Buffer[] = []
  let held = 0
  for await (const chunk of body) {
    let from = 0
    for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, from)) {
      const line = Buffer.concat([...parts, chunk.subarray(from, at)])
      parts = []
      held = 0
      from = at + 1
      if (line.length > 0) yield parseEvent(line)
    }
    if (from < chunk.length) {
      parts.push(chunk.subarray(from))
      held += chunk.length - from
    }
    if (held > LINE_BYTES_MAX) throw new Error(`a watch line exceeds ${LINE_BYTES_MAX} bytes`)
  }
}

function parseJson(line: Buffer): unknown {
  try {
    return JSON.parse(line.toString('utf8'))
  } catch (cause) {
    throw new RelistNeeded('a watch line is not JSON', { cause })
  }
}

function parseEvent(line: Buffer): WatchEvent {
  const event = parseJson(line)
  if (typeof event !== 'object' || event === null || !('type' in event) || !('object' in event)) {
    throw new RelistNeeded('a watch line is not an event')
  }
  const { type, object } = event
  if (typeof type !== 'string') throw new RelistNeeded('a watch line is not an event')
  if (type !== 'ERROR') return { type, object }
  const code = (object as { code?: unknown } | null)?.code
  if (code === 410) throw new RelistNeeded()
  throw new Error(`the watch ended with an error ${JSON.stringify(code)}`)
}
