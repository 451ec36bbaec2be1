/** The answer to a `Sec-WebSocket-Key` (RFC 6455 §1.3). */

import { hash } from 'node:crypto'

const ACCEPT_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

/** The value of `Sec-WebSocket-Accept` for this key. */
export const acceptKeyOf = (key: string): string => hash('sha1', key + ACCEPT_GUID, 'base64')
