/** Calls the admin port of the sidecar that runs in the same container. */

import { once } from 'node:events'
import { request, type IncomingMessage } from 'node:http'
import type { LookupFunction } from 'node:net'
import type { Clock } from '../lib/clock.ts'
import { isLoopbackHost } from '../lib/address.ts'
import { withDeadline } from '../lib/deadline.ts'
import { ignoreError } from '../lib/peer-errors.ts'

export type AdminCall = {
  readonly origin: string
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly deadlineMs: number
  /** The longest answer, in bytes; a longer one is an error. Default 64 KiB. */
  readonly bytesMax?: number
  readonly clock: Clock
}

export type AdminAnswer = { readonly status: number; readonly text: string }

/**
 * `localhost`, without asking a resolver: in an IPv6-only machine, and in one without IPv6, the port
 * is on one of them.
 */
const lookupLoopback: LookupFunction = (_hostname, _options, callback) =>
  callback(null, [
    { address: '127.0.0.1', family: 4 },
    { address: '::1', family: 6 },
  ])

/** Whatever is longer is not from the sidecar, apart from its metrics. */
const ANSWER_BYTES_MAX = 64 * 1024

/**
 * Rejects when nothing answers in time. There is no other timeout: a drain takes as long as it
 * takes.
 */
export function callAdmin(call: AdminCall): Promise<AdminAnswer> {
  const { deadlineMs, bytesMax = ANSWER_BYTES_MAX } = call
  return withDeadline(call.clock, deadlineMs, async (signal) => {
    const response = await send(call, signal)
    return { status: response.statusCode ?? 0, text: await readBounded(response, bytesMax) }
  })
}

/** Not undici: it would cost the container more memory, and its features are not needed here. */
async function send(
  { origin, method, path, headers = {} }: Pick<AdminCall, 'origin' | 'method' | 'path' | 'headers'>,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const url = new URL(path, origin)
  const lookup = url.hostname === 'localhost' ? { lookup: lookupLoopback } : {}
  const how = { method, headers, agent: false, signal, autoSelectFamily: true, ...lookup }
  const sent = request(url, how)
  const [response] = (await once(sent.end(), 'response')) as [IncomingMessage]
  // The answer tells what becomes of the connection.
  sent.on('error', ignoreError)
  return response
}

async function readBounded(response: IncomingMessage, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > bytesMax) throw new Error('the answer is too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** Text that the server sends in place of a status is cut to this many characters. */
const REASON_LENGTH_MAX = 200

/** Why there is no status: from another address than loopback it is not found, without a reason. */
export function explainNoStatus(origin: string, { status, text }: AdminAnswer): string {
  const { hostname, port } = new URL(origin)
  if (status === 404 && !isLoopbackHost(hostname)) {
    return `the status is shown on loopback only, and listen.admin is ${hostname}: set it to [::]:${port}`
  }
  return `it answered ${status}: ${text.slice(0, REASON_LENGTH_MAX).trim()}`
}

/**
 * The events of the admin port as they come (server-sent events, one line of data each), until the
 * port ends them. Rejects when it is silent for `deadlineMs`, or refuses.
 */
export async function* followEvents(call: Omit<AdminCall, 'method'>): AsyncGenerator<string> {
  const { deadlineMs, bytesMax = ANSWER_BYTES_MAX, clock } = call
  const response = await withDeadline(clock, deadlineMs, (signal) =>
    send({ ...call, method: 'GET' }, signal),
  )
  if (response.statusCode !== 200) {
    const text = await withDeadline(clock, deadlineMs, () => readBounded(response, bytesMax))
    throw new Error(explainNoStatus(call.origin, { status: response.statusCode ?? 0, text }))
  }
  let waiting = ''
  const chunks = response.setEncoding('utf8')[Symbol.asyncIterator]()
  for (;;) {
    const { done, value } = await withDeadline(clock, deadlineMs, () => chunks.next())
    if (done === true) return
    waiting += value as string
    const events = waiting.split('\n\n')
    waiting = events.pop() ?? ''
    if (waiting.length > bytesMax) throw new Error('an event is too long')
    for (const event of events) yield event.replace(/^data: /, '')
  }
}
