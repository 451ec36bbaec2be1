/** What a mode does with the messages of one connection; here the simplest one, the echo. */

import type { StubConnection } from './connection.ts'

export type Dialogue = {
  readonly receive: (message: Buffer, isBinary: boolean) => void
  /** The connection is gone. */
  readonly end: () => void
}

const HEADERS_COMMAND = Buffer.from('headers')

/** Sends every message back as it came. The text `headers` is answered with the handshake's. */
export const openEcho = (connection: StubConnection): Dialogue => ({
  receive(message, isBinary) {
    if (isBinary || !message.equals(HEADERS_COMMAND)) return connection.send(message, isBinary)
    connection.send(JSON.stringify(connection.handshake.headers))
  },
  end() {},
})
