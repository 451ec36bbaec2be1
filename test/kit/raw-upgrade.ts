/** Hand-made requests over a bare socket: what no well-behaved client would send. */

import { connect as connectTcp } from 'node:net'
import type { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

export type RawRequest = {
  readonly host?: string
  readonly port: number
  readonly localAddress?: string
  /** The head's lines, ended by CRLF and an empty line; or the exact text or bytes. */
  readonly lines?: readonly string[]
  readonly bytes?: string | Buffer
  readonly tls?: {
    readonly ca: string
    readonly servername?: string
    readonly cert?: string
    readonly key?: string
  }
  /** The most to wait for a close or a 101; 10 s unless said otherwise. */
  readonly timeoutMs?: number
}

export type RawAnswer = {
  /** 0 when the connection ended without an answer. */
  readonly status: number
  /** Lower-case names; repeated fields are joined by a comma. */
  readonly headers: Readonly<Record<string, string>>
  /** Empty after a 101: what follows can be read from `socket`. */
  readonly body: string
  /** Everything received, byte by byte, up to the head of a 101. */
  readonly raw: string
  /** Whether the connection ended by RST. */
  readonly isReset: boolean
  readonly socket: Socket
}

const BYTES_MAX = 1024 * 1024

/** A correct upgrade request for `path`, to be bent line by line. */
export const upgradeLines = (path = '/', extra: readonly string[] = []): readonly string[] => [
  `GET ${path} HTTP/1.1`,
  'Host: localhost',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ...extra,
]

/** Sends the request and reads until a 101, the end of the answer's body, or the close. */
export const rawUpgrade = async (request: RawRequest): Promise<RawAnswer> => {
  const socket = await open(request)
  const bytes = request.bytes ?? `${(request.lines ?? upgradeLines()).join('\r\n')}\r\n\r\n`
  socket.write(bytes)
  return read(socket, request.timeoutMs ?? 10_000)
}

const open = async (request: RawRequest): Promise<Socket> => {
  const { host = '127.0.0.1', port, localAddress, tls } = request
  const target = { host, port, ...(localAddress === undefined ? {} : { localAddress }) }
  const event = tls === undefined ? 'connect' : 'secureConnect'
  const socket =
    tls === undefined
      ? connectTcp(target)
      : connectTls({ ...target, servername: 'localhost', ...tls, ALPNProtocols: ['http/1.1'] })
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    socket.once(event, () => {
      socket.off('error', reject)
      resolve()
    })
  })
  // What goes wrong later is part of the answer, never an uncaught error of the test.
  socket.on('error', () => {})
  return socket
}

const read = async (socket: Socket, timeoutMs: number): Promise<RawAnswer> =>
  new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0)
    let isReset = false
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new Error(`no end of the answer within ${timeoutMs} ms: ${received.toString()}`))
    }, timeoutMs)

    const settle = (): void => {
      clearTimeout(timer)
      socket.off('data', onData).off('end', settle).off('close', settle)
      resolve({ ...parse(received), isReset, socket })
    }
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk])
      const length = lengthOf(received)
      if (length === undefined && received.length <= BYTES_MAX) return
      if (length === undefined || received.length < length) return
      const rest = received.subarray(length)
      received = received.subarray(0, length)
      socket.pause()
      if (rest.length > 0) socket.unshift(rest)
      settle()
    }
    socket.on('error', (error: NodeJS.ErrnoException) => {
      isReset = error.code === 'ECONNRESET'
    })
    socket.on('data', onData).on('end', settle).on('close', settle)
  })

/** Where the answer ends, once that can be told: after a 101's head, or by its Content-Length. */
const lengthOf = (received: Buffer): number | undefined => {
  const head = received.indexOf('\r\n\r\n')
  if (head < 0) return undefined
  const { status, headers } = parse(received)
  if (status === 101) return head + 4
  const length = headers['content-length']
  return length === undefined ? undefined : head + 4 + Number(length)
}

const parse = (received: Buffer) => {
  const raw = received.toString('latin1')
  const end = raw.indexOf('\r\n\r\n')
  const head = end < 0 ? raw : raw.slice(0, end)
  const [statusLine = '', ...fields] = head.split('\r\n')
  const headers: Record<string, string> = {}
  for (const field of fields) {
    const colon = field.indexOf(':')
    if (colon < 0) continue
    const name = field.slice(0, colon).toLowerCase()
    const value = field.slice(colon + 1).trim()
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`
  }
  return {
    status: Number(/^HTTP\/\d\.\d (\d{3})/.exec(statusLine)?.[1] ?? 0),
    headers,
    body: end < 0 ? '' : received.subarray(end + 4).toString(),
    raw,
  }
}
