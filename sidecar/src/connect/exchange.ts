/** Sends an HTTP request of session hosting on, and its answer back, both as streams. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline, finished } from 'node:stream/promises'
import type { Clock } from '../lib/clock.ts'
import { asError } from '../lib/errors.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import { answerCode, Unavailable, type Outcome } from './codes.ts'
import { BODY_BYTES_MAX, type ExchangeRequest } from './guard.ts'
import { callSidecar, type SidecarCall, type TargetOptions } from './target.ts'

export type ExchangeOptions = { readonly target: TargetOptions; readonly clock: Clock }

/** For a request and its answer together, in milliseconds: the gateway's own limit. */
const EXCHANGE_MS_MAX = 10 * 60_000

const NO_CONTENT = 204

/** The headers of an answer that go on to the worker. */
const PASSED = [
  'content-type',
  'content-encoding',
  'vary',
  'cache-control',
  'retry-after',
  'x-openclaw-content-sha256',
] as const

/** Never rejects: what fails is answered, or cuts the connection. Resolves with what the log is told. */
export async function exchange(
  accepted: ExchangeRequest,
  request: IncomingMessage,
  response: ServerResponse,
  { target, clock }: ExchangeOptions,
): Promise<Outcome | undefined> {
  response.on('error', ignoreError)
  const cancel = clock.after(EXCHANGE_MS_MAX, () => void response.destroy())
  try {
    await pass(accepted, request, response, target)
    return { code: 'connected' }
  } catch (error) {
    // What began with an answer's head can only be cut: its length shows that something is missing.
    if (response.headersSent || !(error instanceof Unavailable)) {
      response.destroy()
      return undefined
    }
    answerCode(response, error.code)
    return { code: error.code, reason: error.message }
  } finally {
    cancel()
  }
}

async function pass(
  accepted: ExchangeRequest,
  request: IncomingMessage,
  response: ServerResponse,
  target: TargetOptions,
): Promise<void> {
  // A node host that gets its answer before its body was read can end: so read it, whatever happens.
  const received = finished(request, { writable: false })
  received.catch(ignoreError)
  let call: SidecarCall
  try {
    call = callSidecar(target, {
      method: accepted.method,
      path: accepted.path,
      headers: headersOf(accepted, request),
      answerMsMax: EXCHANGE_MS_MAX,
    })
  } catch (error) {
    request.resume()
    await received
    throw error
  }
  response.once('close', () => call.request.destroy())
  try {
    const answer = await answerOf(call, request)
    await received
    response.writeHead(answer.statusCode ?? 0, passedHeaders(answer))
    await pipeline(answer, response)
  } catch (error) {
    call.request.destroy()
    await received
    throw error
  }
}

const headersOf = (
  { authorization, length }: ExchangeRequest,
  { headersDistinct }: IncomingMessage,
) => ({
  Connection: 'close',
  Authorization: authorization,
  'Content-Type': single(headersDistinct['content-type']),
  'Content-Length': length?.toString(),
  'Accept-Encoding': single(headersDistinct['accept-encoding']),
})

const single = (values: readonly string[] = []): string | undefined =>
  values.length === 1 ? values[0] : undefined

/** Sends the body and resolves with the answer's head. Rejects with `Unavailable`. */
async function answerOf(
  { request: upstream, explain }: SidecarCall,
  request: IncomingMessage,
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  /** Reads the rest of the body, for nobody. */
  const readOn = () => void request.unpipe(upstream).resume()
  upstream.on('error', (error) => reject(explain(asError(error))))
  upstream.once('close', () => {
    readOn()
    reject(explain(new Error('the connection was closed without an answer')))
  })
  upstream.once('response', (answer) => {
    answer.on('error', ignoreError)
    // A sidecar that answers early needs no more of the body.
    readOn()
    const objection = findObjection(answer)
    if (objection === undefined) resolve(answer)
    else reject(new Unavailable('sidecar_answer_invalid', objection))
  })
  // A 101 was not asked for.
  upstream.once('upgrade', (_, socket) => {
    socket.on('error', ignoreError).destroy()
    reject(new Unavailable('sidecar_answer_invalid', 'a request was answered 101'))
  })
  // Not `pipeline`, which would destroy the request when the other side breaks.
  request.pipe(upstream)
  return promise
}

function findObjection({ statusCode = 0, headers }: IncomingMessage): string | undefined {
  if (statusCode < 200 || (statusCode >= 300 && statusCode < 400)) {
    return `a request was answered ${statusCode}`
  }
  if (statusCode === NO_CONTENT) return undefined
  const length = Number(headers['content-length'] ?? Number.NaN)
  if (headers['transfer-encoding'] !== undefined || !Number.isInteger(length)) {
    return 'an answer has no Content-Length'
  }
  return length > BODY_BYTES_MAX ? 'an answer exceeds 4 GiB' : undefined
}

const passedHeaders = ({ statusCode, headers }: IncomingMessage): Record<string, string> => ({
  ...Object.fromEntries(
    PASSED.flatMap((name) => {
      const value = headers[name]
      return typeof value === 'string' ? [[name, value]] : []
    }),
  ),
  // A 204 has none (RFC 9110 §8.6).
  ...(statusCode === NO_CONTENT ? {} : { 'content-length': headers['content-length'] ?? '0' }),
  connection: 'close',
})
