/** Answers the requests of a connection one after the other, however many its peer sends at once. */

import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

export type OneAtATimeOptions = {
  /** Requests that may wait behind the one that is answered; a connection with more is closed. */
  readonly waitingMax: number
  /** Requests answered on one connection, which is then closed. */
  readonly perConnectionMax: number
}

type Line = {
  isAnswering: boolean
  begun: number
  readonly waiting: (() => void)[]
}

/**
 * Node parses all requests of a segment at once and keeps every answer until its peer reads it.
 * Here a request is begun when the kernel has taken the answer before it.
 */
export function oneAtATime(
  answer: RequestListener,
  { waitingMax, perConnectionMax }: OneAtATimeOptions,
): RequestListener {
  const lines = new WeakMap<Socket, Line>()

  const begin = (line: Line, request: IncomingMessage, response: ServerResponse): void => {
    line.isAnswering = true
    line.begun += 1
    if (line.begun >= perConnectionMax) response.setHeader('Connection', 'close')
    response.once('close', () => {
      line.isAnswering = false
      if (line.begun < perConnectionMax && !request.socket.destroyed) line.waiting.shift()?.()
    })
    answer(request, response)
  }

  return (request, response) => {
    const { socket } = request
    if (socket.destroyed) return
    const line = lines.get(socket) ?? { isAnswering: false, begun: 0, waiting: [] }
    lines.set(socket, line)
    if (!line.isAnswering) begin(line, request, response)
    else if (line.waiting.length < waitingMax) {
      line.waiting.push(() => begin(line, request, response))
    } else socket.destroy()
  }
}
