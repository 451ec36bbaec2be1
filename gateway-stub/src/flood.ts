/** Sends many messages as fast as the reader takes them. */

import type { WebSocket } from '@fastify/websocket'
import type { FloodBehavior } from './behavior.ts'
import { BUFFERED_BYTES_MAX } from './connection.ts'

export function flood(ws: WebSocket, { messages, messageBytes }: FloodBehavior): void {
  let sent = 0
  const pump = (): void => {
    while (sent < messages && ws.readyState === ws.OPEN && ws.bufferedAmount < BUFFERED_BYTES_MAX) {
      const message = Buffer.alloc(messageBytes, sent % 256)
      sent += 1
      ws.send(message, { binary: true }, pump)
    }
  }
  pump()
}
