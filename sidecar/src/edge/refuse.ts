/** The one place where a refusal becomes bytes. */

import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import { CODES, isFault, type Code } from '../denial.ts'
import { closeFrame, textFrame } from '../websocket/frames.ts'

/**
 * How long a refused peer may take to disconnect before its socket is destroyed, in milliseconds.
 */
const LINGER_MS = 2000
const RETRY_AFTER_S_MIN = 1
const RETRY_AFTER_S_SPREAD = 3

export type RefuseOptions = {
  readonly clock: Clock
  /** From 0 to 1, so that refused workers do not all come back at once. */
  readonly random: () => number
}

/** The body of every refusal: OpenClaw's error format, whose message a node prints. */
export const refusalBody = (code: Code): string =>
  JSON.stringify({ error: { type: code, message: CODES[code].message } })

/** The headers of an HTTP refusal, except `Content-Length` and `Connection`. */
export function refusalHeaders(code: Code, random: () => number): Record<string, string> {
  const { status } = CODES[code]
  const retryAfterS = RETRY_AFTER_S_MIN + Math.floor(random() * RETRY_AFTER_S_SPREAD)
  return {
    'Content-Type': 'application/json; charset=utf-8',
    'Cache-Control': 'no-store',
    ...(isFault(code) ? { 'Retry-After': String(retryAfterS) } : {}),
    ...(status === 401 ? { 'WWW-Authenticate': 'Bearer' } : {}),
    ...(status === 405 ? { Allow: 'GET' } : {}),
    ...(status === 426 ? { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13' } : {}),
  }
}

/** A complete HTTP/1.1 response that refuses. */
export function refusalResponse(code: Code, random: () => number): string {
  const { status } = CODES[code]
  const body = refusalBody(code)
  const headers = {
    ...refusalHeaders(code, random),
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: status === 426 ? 'close, Upgrade' : 'close',
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Refused'}\r\n${lines.join('')}\r\n${body}`
}

/** Refuses an upgrade and ends the socket; later bytes from the peer are discarded. */
export function refuseUpgrade(socket: Duplex, code: Code, options: RefuseOptions): void {
  endSocket(socket, refusalResponse(code, options.random), options.clock)
}

/** Ends an open WebSocket: the dialect's message, if it has one, then the close frame. */
export function refuseOpened(
  socket: Duplex,
  code: Code,
  message: string | undefined,
  clock: Clock,
): void {
  const close = closeFrame({ code: CODES[code].close, reason: code, masked: false })
  const first = message === undefined ? [] : [textFrame(message, { masked: false })]
  endSocket(socket, Buffer.concat([...first, close]), clock)
}

/** Ends a WebSocket whose peer's close frame was answered. */
export const endOpened = (socket: Duplex, clock: Clock): void => endSocket(socket, '', clock)

/**
 * Unread bytes would turn the end into a reset that can destroy the answer, so they are read and
 * discarded.
 */
function endSocket(socket: Duplex, bytes: string | Buffer, clock: Clock): void {
  if (socket.destroyed) return
  const cancel = clock.after(LINGER_MS, () => socket.destroy())
  socket.once('close', cancel)
  socket.on('error', () => {})
  socket.end(bytes)
  socket.removeAllListeners('data')
  socket.resume()
}
