/** Workers for tests: an independent WebSocket client (`ws`) that can show a token in every way. */

import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import type { ClientOptions, RawData } from 'ws'

type Carrier = 'bearer' | 'header' | 'cf' | 'subprotocol' | 'none'

export type WorkerOptions = {
  readonly url: string
  readonly token?: string
  /** How the token is shown; `bearer` unless said otherwise. */
  readonly carrier?: Carrier
  /** The source address: another 127.0.0.x stands for another pod. */
  readonly localAddress?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Subprotocols to offer besides the token's. */
  readonly protocols?: readonly string[]
  readonly ca?: string
  /** A client certificate for mutual TLS. */
  readonly cert?: string
  readonly key?: string
  readonly messageBytesMax?: number
}

export type Connected = {
  readonly ok: true
  readonly socket: WebSocket
  /** The subprotocol chosen, empty when none was. */
  readonly protocol: string
  readonly headers: IncomingHttpHeaders
}

export type Refused = {
  readonly ok: false
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** Parsed when it is JSON, else the text. */
  readonly body: unknown
}

export type Message = { readonly data: Buffer; readonly text: string; readonly binary: boolean }
export type Closed = { readonly code: number; readonly reason: string }

const BODY_BYTES_MAX = 64 * 1024
const MESSAGES_MAX = 100_000
const TOKEN_PROTOCOL = 'base64url.bearer.authorization.k8s.io.'

/** Connects as a worker. Rejects only if there was no HTTP answer. */
export const connectWorker = async (options: WorkerOptions): Promise<Connected | Refused> => {
  const { headers, protocols } = credentials(options)
  const socket = new WebSocket(options.url, protocols, {
    headers,
    perMessageDeflate: false,
    maxPayload: options.messageBytesMax ?? 64 * 1024 * 1024,
    // Only what is given: an undefined `ca` or `localAddress` is not the same as none.
    ...pick(options, ['localAddress', 'ca', 'cert', 'key']),
  })
  inboxOf(socket)
  return new Promise((resolve, reject) => {
    let upgrade: IncomingHttpHeaders = {}
    socket.on('upgrade', (response) => {
      upgrade = response.headers
    })
    socket.on('open', () => {
      resolve({ ok: true, socket, protocol: socket.protocol, headers: upgrade })
    })
    socket.on('unexpected-response', (request, response) => {
      refusal(response)
        .finally(() => request.destroy())
        .then(resolve, reject)
    })
    socket.on('error', reject)
  })
}

/** Connects, or throws with the refusal: for tests that are about what comes after. */
export const openWorker = async (options: WorkerOptions): Promise<WebSocket> => {
  const outcome = await connectWorker(options)
  if (outcome.ok) return outcome.socket
  throw new Error(`refused with ${outcome.status}: ${JSON.stringify(outcome.body)}`)
}

export type InBandOutcome =
  | { readonly kind: 'message'; readonly message: Message; readonly socket: WebSocket }
  | ({ readonly kind: 'closed' } & Closed)
  | ({ readonly kind: 'refused' } & Refused)

/** Connects without a credential, sends `frame` first, and tells what came back first. */
export const connectInBand = async (
  options: WorkerOptions & { readonly frame: string | Buffer | Readonly<Record<string, unknown>> },
): Promise<InBandOutcome> => {
  const outcome = await connectWorker({ ...options, carrier: 'none' })
  if (!outcome.ok) return { kind: 'refused', ...outcome }
  const { socket } = outcome
  const { frame } = options
  socket.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame))
  return Promise.race([
    nextMessage(socket).then((message) => ({ kind: 'message', message, socket }) as const),
    closed(socket).then((close) => ({ kind: 'closed', ...close }) as const),
  ]).catch(async () => ({ kind: 'closed', ...(await closed(socket)) }))
}

/** The next message in order, also one that came before it was asked for; rejects on a close. */
export const nextMessage = async (socket: WebSocket): Promise<Message> => inboxOf(socket).next()

/** How the stream ended; 1006 when it did without a close frame. */
export const closed = async (socket: WebSocket): Promise<Closed> => inboxOf(socket).closed

/** Collects what arrives from the moment it is made, so that no message falls between two waits. */
class Inbox {
  readonly closed: Promise<Closed>
  readonly #messages: Message[] = []
  readonly #waiting: PromiseWithResolvers<Message>[] = []
  #close: Closed | undefined

  constructor(socket: WebSocket) {
    const { promise, resolve } = Promise.withResolvers<Closed>()
    this.closed = promise
    socket.on('message', (data, binary) => this.#receive(socket, toMessage(data, binary)))
    // A socket error is always followed by the close that tests look at.
    socket.on('error', () => {})
    socket.once('close', (code, reason) => {
      this.#close = { code, reason: reason.toString() }
      for (const waiter of this.#waiting.splice(0)) waiter.reject(closeError(this.#close))
      resolve(this.#close)
    })
  }

  async next(): Promise<Message> {
    const message = this.#messages.shift()
    if (message !== undefined) return message
    if (this.#close !== undefined) throw closeError(this.#close)
    const waiter = Promise.withResolvers<Message>()
    this.#waiting.push(waiter)
    return waiter.promise
  }

  #receive(socket: WebSocket, message: Message): void {
    const waiter = this.#waiting.shift()
    if (waiter !== undefined) waiter.resolve(message)
    else if (this.#messages.push(message) > MESSAGES_MAX) socket.terminate()
  }
}

const inboxes = new WeakMap<WebSocket, Inbox>()

const inboxOf = (socket: WebSocket): Inbox => {
  const inbox = inboxes.get(socket) ?? new Inbox(socket)
  inboxes.set(socket, inbox)
  return inbox
}

const closeError = ({ code, reason }: Closed): Error =>
  new Error(`closed with ${code} ${reason} before a message came`)

const toMessage = (raw: RawData, binary: boolean): Message => {
  const data = Array.isArray(raw) ? Buffer.concat(raw) : Buffer.from(raw as Buffer)
  return { data, text: binary ? '' : data.toString(), binary }
}

const credentials = (options: WorkerOptions) => {
  const { token, carrier = 'bearer', protocols = [] } = options
  const given = { ...options.headers }
  if (token === undefined || carrier === 'none')
    return { headers: given, protocols: [...protocols] }
  switch (carrier) {
    case 'bearer':
      return { headers: { Authorization: `Bearer ${token}`, ...given }, protocols: [...protocols] }
    case 'header':
      return { headers: { 'X-OpenClaw-SA-Token': token, ...given }, protocols: [...protocols] }
    case 'cf':
      return { headers: { 'CF-Access-Client-Secret': token, ...given }, protocols: [...protocols] }
    case 'subprotocol': {
      const shown = `${TOKEN_PROTOCOL}${Buffer.from(token).toString('base64url')}`
      // `ws` insists on a chosen subprotocol when it offers any, and the token must never be that
      // one: alone it goes as a plain header, where an echo of it is an error of the client.
      if (protocols.length > 0) return { headers: given, protocols: [shown, ...protocols] }
      return { headers: { 'Sec-WebSocket-Protocol': shown, ...given }, protocols: [] }
    }
  }
}

const pick = (options: WorkerOptions, names: readonly (keyof WorkerOptions)[]): ClientOptions =>
  Object.fromEntries(
    names.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]),
  )

const refusal = async (response: IncomingMessage): Promise<Refused> => ({
  ok: false,
  status: response.statusCode ?? 0,
  headers: response.headers,
  body: await readBody(response),
})

const readBody = async (response: IncomingMessage): Promise<unknown> => {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > BODY_BYTES_MAX) break
    chunks.push(chunk)
  }
  const text = Buffer.concat(chunks).toString()
  try {
    return JSON.parse(text) as unknown
  } catch {
    return text
  }
}
