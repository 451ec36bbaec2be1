/** Leads a worker's upgrade to the gateway's sidecar, and joins the two sockets. */

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { EarlyBytes } from '../edge/early-bytes.ts'
import type { Clock } from '../lib/clock.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import { acceptKeyOf } from '../websocket/accept-key.ts'
import { judgeResponseHead } from '../websocket/response-head.ts'
import { answerCode, answerJson, responseOn, Unavailable, type Outcome } from './codes.ts'
import type { StreamRequest } from './guard.ts'
import { readRefusal, type Refusal } from './refusal.ts'
import { relay, type Relay } from './relay.ts'
import { callSidecar, type TargetOptions } from './target.ts'

export type StreamOptions = {
  readonly target: TargetOptions
  /** What the worker asks to be, where its ServiceAccount may be several things. */
  readonly role: string | undefined
  readonly clock: Clock
}

export type Upgrade = {
  readonly request: IncomingMessage
  readonly socket: Socket
  /** What the worker sent behind its request. */
  readonly head: Buffer
  readonly accepted: StreamRequest
}

type Opened = {
  readonly socket: Socket
  readonly head: Buffer
  readonly subprotocol: string | undefined
}

/** A sidecar may take `limits.handshakeTimeout` (15 s) to verify a token, in milliseconds. */
const ANSWER_MS_MAX = 30_000
export type OpenedStream = {
  /** `undefined` when the worker left before there was an answer. */
  readonly outcome: Outcome | undefined
  readonly relay?: Relay
}

/** The worker needs no answer any more. */
class WorkerLeft extends Error {}

/** Whatever fails is answered, and told as the outcome. */
export async function openStream(upgrade: Upgrade, options: StreamOptions): Promise<OpenedStream> {
  const { socket: worker, request, accepted } = upgrade
  const { clock } = options
  worker.on('error', ignoreError)
  // Node's `head` is a view of the chunk that holds the whole request.
  const early = new EarlyBytes(worker)
  early.start(Buffer.from(upgrade.head))
  const left = new AbortController()
  const onLeft = () => left.abort()
  worker.once('end', onLeft).once('close', onLeft)
  const answer = await ask(accepted, options, left.signal).catch(asFailure)
  worker.off('end', onLeft).off('close', onLeft)
  const first = early.stop()
  if (answer instanceof WorkerLeft) {
    worker.destroy()
    return { outcome: undefined }
  }
  if (answer instanceof Unavailable) {
    answerCode(responseOn(worker, request, clock), answer.code)
    return { outcome: { code: answer.code, reason: answer.message } }
  }
  if ('status' in answer) {
    const { status, body, retryAfter } = answer
    const headers = retryAfter === undefined ? {} : { 'Retry-After': retryAfter }
    answerJson(responseOn(worker, request, clock), status, body, headers)
    return { outcome: { code: 'refused', status, reason: body } }
  }
  worker.write(openingOf(accepted.upgrade.key, answer.subprotocol))
  if (answer.head.length > 0) worker.write(answer.head)
  if (first.length > 0) answer.socket.write(first)
  return { outcome: { code: 'connected' }, relay: relay({ worker, gateway: answer.socket, clock }) }
}

const asFailure = (error: unknown): Unavailable | WorkerLeft => {
  if (error instanceof Unavailable || error instanceof WorkerLeft) return error
  throw error
}

/** Rejects with `Unavailable`, or with `WorkerLeft`. */
async function ask(
  accepted: StreamRequest,
  { target, role, clock }: StreamOptions,
  left: AbortSignal,
): Promise<Opened | Refusal> {
  const { request, explain } = callSidecar(target, {
    method: 'GET',
    path: accepted.path,
    headers: headersOf(accepted, role),
    answerMsMax: ANSWER_MS_MAX,
  })
  const { promise, resolve, reject } = Promise.withResolvers<Opened | Refusal>()
  const leave = () => {
    reject(new WorkerLeft())
    request.destroy()
  }
  left.addEventListener('abort', leave, { once: true })
  const onClose = () => reject(explain(new Error('the connection was closed without an answer')))
  request.on('error', (error) => reject(explain(error)))
  request.once('close', onClose)
  request.once('upgrade', (response, socket, head) => {
    socket.on('error', ignoreError)
    const opened = judgeOpening(response, { socket, head }, accepted)
    if (!(opened instanceof Unavailable)) return resolve(opened)
    socket.destroy()
    reject(opened)
  })
  request.once('response', (response) => {
    request.off('close', onClose)
    void readRefusal(response, clock).then(resolve, reject)
  })
  request.end()
  return promise.finally(() => left.removeEventListener('abort', leave))
}

/** Built from an allow-list: nothing else of the worker's request goes on. */
const headersOf = ({ upgrade, authorization }: StreamRequest, role: string | undefined) => ({
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': upgrade.key,
  'Sec-WebSocket-Protocol':
    upgrade.subprotocols.length === 0 ? undefined : upgrade.subprotocols.join(', '),
  'User-Agent': upgrade.userAgent,
  traceparent: upgrade.traceparent,
  'X-OpenClaw-Role': role,
  Authorization: authorization,
})

const openingOf = (key: string, subprotocol: string | undefined): string =>
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
  `Sec-WebSocket-Accept: ${acceptKeyOf(key)}\r\n` +
  `${subprotocol === undefined ? '' : `Sec-WebSocket-Protocol: ${subprotocol}\r\n`}\r\n`

function judgeOpening(
  response: IncomingMessage,
  { socket, head }: { readonly socket: Socket; readonly head: Buffer },
  { upgrade }: StreamRequest,
): Opened | Unavailable {
  const lines = [`HTTP/1.1 ${response.statusCode}`]
  const { rawHeaders } = response
  for (let at = 0; at < rawHeaders.length; at += 2) {
    lines.push(`${rawHeaders[at]}: ${rawHeaders[at + 1]}`)
  }
  const { key, subprotocols } = upgrade
  const judgement = judgeResponseHead(lines.join('\r\n'), { key, subprotocols })
  if (!judgement.ok) return new Unavailable('sidecar_answer_invalid', judgement.reason)
  return { socket, head: Buffer.from(head), subprotocol: judgement.subprotocol }
}
