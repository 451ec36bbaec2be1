/** Answers an upgrade in the ways a sound WebSocket server never would. */

import { createHash } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { Behavior, StatusBehavior } from './behavior.ts'
import type { Handshake } from './handshake.ts'

/** The behaviors that a WebSocket server can show, so that it takes the upgrade. */
const SOUND = ['accept', 'silent', 'close', 'drop', 'flood'] as const

export type RawBehavior = Exclude<Behavior, { readonly kind: (typeof SOUND)[number] }>

/** Whether the upgrade must be answered on the bare socket. */
export function isRaw(behavior: Behavior): behavior is RawBehavior {
  if (behavior.kind === 'subprotocol') return behavior.name !== undefined
  return SOUND.every((kind) => kind !== behavior.kind)
}

export function misbehave(behavior: RawBehavior, socket: Socket, handshake: Handshake): void {
  const accept = acceptOf(handshake.headers['sec-websocket-key'] ?? '')
  switch (behavior.kind) {
    case 'stall':
      return
    case 'refuse':
      socket.destroy()
      return
    case 'status':
      answerStatus(behavior, socket)
      return
    case 'wrong-accept':
      switchProtocols(socket, acceptOf('another key'))
      return
    case 'mute':
      switchProtocols(socket, accept)
      return
    case 'extension':
      switchProtocols(socket, accept, 'Sec-WebSocket-Extensions: permessage-deflate\r\n')
      return
    case 'subprotocol':
      switchProtocols(socket, accept, `Sec-WebSocket-Protocol: ${behavior.name ?? ''}\r\n`)
  }
}

/** RFC 6455 §4.2.2, step 5.4. */
const acceptOf = (key: string): string =>
  createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')

function switchProtocols(socket: Socket, accept: string, lines = ''): void {
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${lines}\r\n`,
  )
}

function answerStatus(behavior: StatusBehavior, socket: Socket): void {
  const { status, headers = {}, body = '', trailing = '', keepOpen = false } = behavior
  // Both in one answer are not HTTP (RFC 9112 §6.2).
  const isChunked = Object.hasOwn(headers, 'Transfer-Encoding')
  const length = isChunked ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }
  const all = { ...length, ...headers }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('')}\r\n${body}`)
  if (trailing.length > 0) socket.write(trailing)
  if (!keepOpen) socket.end()
}
