/** A handle on one connection, upgraded or deliberately not. */

import type { Socket } from 'node:net'
import type { WebSocket } from '@fastify/websocket'
import type { Behavior } from './behavior.ts'
import type { Handshake } from './handshake.ts'

export type StubConnection = {
  readonly handshake: Handshake
  readonly behavior: Behavior
  /** Settles once the connection is gone. 1005: a close without a code; 1006: no close frame. */
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>
  /** Sends one message: a string as text, bytes as binary unless `isBinary` is false. */
  readonly send: (message: string | Uint8Array, isBinary?: boolean) => void
  /** Writes bytes past the framing, to break the protocol on purpose. */
  readonly writeBytes: (bytes: Uint8Array) => void
  /** Starts the close handshake. Default 1000. */
  readonly close: (code?: number, reason?: string) => void
  /** Destroys the TCP connection. */
  readonly terminate: () => void
  /** Stops reading from the peer until `resume`. */
  readonly pause: () => void
  readonly resume: () => void
  /** Bytes queued towards the peer that the kernel has not taken yet. */
  readonly bufferedBytes: () => number
}

export type Arrival = {
  readonly socket: Socket
  readonly handshake: Handshake
  readonly behavior: Behavior
}

/** Bytes queued towards a slow reader before the stub stops reading from it. */
export const BUFFERED_BYTES_MAX = 1_048_576

/** The handle on a connection that `ws` handles. */
export function handleWebSocket(ws: WebSocket, arrival: Arrival): StubConnection {
  const { socket, handshake, behavior } = arrival
  const { promise: closed, resolve } = Promise.withResolvers<{ code: number; reason: string }>()
  ws.once('close', (code, reason) => resolve({ code, reason: reason.toString() }))
  let isHeld = false
  let isBackedUp = false
  const steer = (): void => {
    if (isHeld || isBackedUp) ws.pause()
    else ws.resume()
  }
  const watchBuffer = (): void => {
    const isFull = ws.bufferedAmount > BUFFERED_BYTES_MAX
    if (isFull === isBackedUp) return
    isBackedUp = isFull
    steer()
  }
  const hold = (held: boolean) => (): void => {
    isHeld = held
    steer()
  }
  return {
    handshake,
    behavior,
    closed,
    send(message, isBinary = typeof message !== 'string') {
      ws.send(message, { binary: isBinary }, watchBuffer)
      watchBuffer()
    },
    writeBytes: (bytes) => void socket.write(bytes),
    close: (code = 1000, reason = '') => ws.close(code, reason),
    terminate: () => ws.terminate(),
    pause: hold(true),
    resume: hold(false),
    bufferedBytes: () => ws.bufferedAmount,
  }
}

/** The handle on a connection without WebSocket: it reads and discards. */
export function handleRawSocket(arrival: Arrival): StubConnection {
  const { socket, handshake, behavior } = arrival
  const { promise: closed, resolve } = Promise.withResolvers<{ code: number; reason: string }>()
  socket.once('close', () => resolve({ code: 1006, reason: '' }))
  // HTTP sockets stay half open: without this, a connection whose peer left would stay for ever.
  socket.once('end', () => socket.end())
  socket.resume()
  return {
    handshake,
    behavior,
    closed,
    send(message, isBinary = typeof message !== 'string') {
      socket.write(serverFrame(isBinary ? 0x2 : 0x1, Buffer.from(message)))
    },
    writeBytes: (bytes) => void socket.write(bytes),
    close(code = 1000, reason = '') {
      const status = Buffer.alloc(2)
      status.writeUInt16BE(code)
      socket.write(serverFrame(0x8, Buffer.concat([status, Buffer.from(reason)])))
    },
    terminate: () => void socket.destroy(),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    bufferedBytes: () => socket.writableLength,
  }
}

/** One unmasked, unfragmented frame (RFC 6455 §5.2). */
function serverFrame(opcode: number, payload: Buffer): Buffer {
  const first = 0x80 | opcode
  if (payload.length < 126) return Buffer.concat([Buffer.of(first, payload.length), payload])
  const isShort = payload.length < 65_536
  const head = Buffer.alloc(isShort ? 4 : 10)
  head.writeUInt8(first, 0)
  head.writeUInt8(isShort ? 126 : 127, 1)
  if (isShort) head.writeUInt16BE(payload.length, 2)
  else head.writeBigUInt64BE(BigInt(payload.length), 2)
  return Buffer.concat([head, payload])
}
