/** What `connect` answers by itself, and how its answers look. */

import { ServerResponse, type IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { CODES, type Code } from '../denial.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import type { Clock } from '../lib/clock.ts'

type Answer = { readonly status: number; readonly message: string }

/** Its own codes; the others are those of the worker port. */
export const CONNECT_CODES = {
  host_not_loopback: {
    status: 403,
    message: 'The Host of the request is not a loopback name, such as 127.0.0.1.',
  },
  path_not_served: {
    status: 404,
    message: 'Only the WebSocket at / is served here, and session hosting where it is switched on.',
  },
  authorization_missing: {
    status: 401,
    message: "A session-hosting request needs exactly one Bearer token of the gateway's.",
  },
  length_required: {
    status: 411,
    message: 'A body needs a Content-Length, and only a POST can have one.',
  },
  body_too_large: { status: 413, message: 'The body exceeds 4 GiB.' },
  token_unavailable: {
    status: 503,
    message: "The pod's token is missing, empty or unreadable. The log of connect says why.",
  },
  certificates_unavailable: {
    status: 503,
    message: 'The TLS files cannot be used. The log of connect says why.',
  },
  sidecar_unreachable: {
    status: 503,
    message: "The gateway's sidecar cannot be reached. Try again later.",
  },
  sidecar_tls_failed: {
    status: 503,
    message: "TLS with the gateway's sidecar failed. The log of connect says why.",
  },
  sidecar_answer_invalid: {
    status: 502,
    message: "The answer of the gateway's sidecar cannot be passed on.",
  },
} as const satisfies Record<string, Answer>

export type ConnectCode = keyof typeof CONNECT_CODES | Code

/** How a call to the gateway's sidecar ended, for the log. */
export type Outcome =
  | { readonly code: 'connected' }
  | { readonly code: 'refused'; readonly status: number; readonly reason: string }
  | { readonly code: keyof typeof CONNECT_CODES; readonly reason: string }

/** Why a request cannot be sent on. `reason` is for the log. */
export class Unavailable extends Error {
  readonly code: keyof typeof CONNECT_CODES

  constructor(code: keyof typeof CONNECT_CODES, reason: string) {
    super(reason)
    this.name = 'Unavailable'
    this.code = code
  }
}

/** How long a refused peer may take to disconnect before its socket is destroyed, in milliseconds. */
const LINGER_MS = 2000
const RETRY_AFTER_S = 1

const answerOf = (code: ConnectCode): Answer =>
  Object.hasOwn(CONNECT_CODES, code)
    ? CONNECT_CODES[code as keyof typeof CONNECT_CODES]
    : CODES[code as Code]

/** OpenClaw's error format, whose message a node prints. Every answer ends its connection. */
export function answerCode(response: ServerResponse, code: ConnectCode): void {
  const { status, message } = answerOf(code)
  const body = JSON.stringify({ error: { type: code, message } })
  const retry = status === 503 ? { 'Retry-After': String(RETRY_AFTER_S) } : {}
  answerJson(response, status, body, retry)
}

/** Answers with a body that is JSON already. */
export function answerJson(
  response: ServerResponse,
  status: number,
  body: string,
  headers: Readonly<Record<string, string>>,
): void {
  response.sendDate = false
  response.writeHead(status, {
    'Content-Type': 'application/json; charset=utf-8',
    'Cache-Control': 'no-store',
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: 'close',
    ...headers,
  })
  response.end(body)
}

/**
 * Answers on the socket of an upgrade, which Node no longer does. The socket then ends; later bytes
 * of the peer are discarded, since unread ones would turn the end into a reset.
 */
export function responseOn(socket: Duplex, request: IncomingMessage, clock: Clock): ServerResponse {
  const response = new ServerResponse(request)
  response.assignSocket(socket as never)
  response.on('error', ignoreError)
  response.once('finish', () => {
    socket.once(
      'close',
      clock.after(LINGER_MS, () => socket.destroy()),
    )
    socket.end()
    socket.resume()
  })
  return response
}
