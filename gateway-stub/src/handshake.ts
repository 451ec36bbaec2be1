/** What the stub remembers of an upgrade request, and how it may be printed. */

import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'

export type Handshake = {
  /** Counted from 1 since the stub started. */
  readonly id: number
  /** Names and values in turn, exactly as they came, repeated ones included. */
  readonly rawHeaders: readonly string[]
  readonly headers: Readonly<IncomingHttpHeaders>
  /** The request target, with its query. */
  readonly path: string
  readonly peerAddress: string
  readonly peerPort: number
  /** Milliseconds since the epoch. */
  readonly at: number
}

export const readHandshake = (request: IncomingMessage, id: number, at: number): Handshake => ({
  id,
  rawHeaders: request.rawHeaders,
  headers: request.headers,
  path: request.url ?? '',
  peerAddress: request.socket.remoteAddress ?? '',
  peerPort: request.socket.remotePort ?? 0,
  at,
})

// An assertion and a bearer subprotocol are credentials too, although their names do not say so.
const SENSITIVE_NAME = /authorization|cookie|token|secret|assertion|password|protocol/i

/** One printable line. Credentials show as <present>, and no byte of a peer can steer a terminal. */
export const describeHandshake = (handshake: Handshake): string => {
  const { id, rawHeaders, path, peerAddress, peerPort, at } = handshake
  const pathOnly = path.split('?', 1)[0] ?? ''
  const headers: string[] = []
  for (let n = 0; n + 1 < rawHeaders.length; n += 2) {
    const name = rawHeaders[n] ?? ''
    const value = SENSITIVE_NAME.test(name) ? '<present>' : JSON.stringify(rawHeaders[n + 1])
    headers.push(`${name}=${value}`)
  }
  const line = `${new Date(at).toISOString()} handshake ${id} ${pathOnly} from ${peerAddress} port ${peerPort}: ${headers.join(' ')}`
  return line.replace(/[^ -~]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
