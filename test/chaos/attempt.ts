/** One attempt to get in, through the workers' leg, with every way it can end. */

import { WebSocket } from 'ws'

export type Caller = {
  /** None: the attempt says nothing about itself. */
  readonly token?: string
  readonly address: string
}

export type Attempt =
  | { readonly kind: 'in'; readonly socket: WebSocket }
  | { readonly kind: 'refused'; readonly status: number; readonly code: string }
  | { readonly kind: 'no answer'; readonly why: string }

const HANDSHAKE_MS = 20_000
const BODY_BYTES_MAX = 64 * 1024

export const attempt = (port: number, { token, address }: Caller): Promise<Attempt> => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`, {
    perMessageDeflate: false,
    handshakeTimeout: HANDSHAKE_MS,
    localAddress: address,
    ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }),
  })
  return new Promise((resolve) => {
    socket.once('open', () => resolve({ kind: 'in', socket }))
    socket.on('error', (error) => resolve({ kind: 'no answer', why: error.message }))
    socket.once('unexpected-response', (request, response) => {
      let body = ''
      const settle = () => {
        request.destroy()
        const { complete, statusCode: status = 0 } = response
        if (complete) resolve({ kind: 'refused', status, code: codeIn(body) })
        else resolve({ kind: 'no answer', why: 'the answer was cut off' })
      }
      response.on('data', (chunk: Buffer) => {
        if (body.length < BODY_BYTES_MAX) body += chunk.toString()
      })
      response.once('error', settle).once('close', settle).once('end', settle)
    })
  })
}

const codeIn = (body: string): string => {
  try {
    return (JSON.parse(body) as { error: { type: string } }).error.type
  } catch {
    return 'no code'
  }
}
