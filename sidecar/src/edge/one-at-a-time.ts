/** Answers a connection's requests one after another, however many its peer sends at once. */

import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

export type OneAtATimeOptions = {
  /** Requests that may wait behind the current one; a connection with more is closed. */
  readonly waitingMax: number
  /** Requests answered on one connection before it is closed. */
  readonly perConnectionMax: number
}

type Line = {
  isAnswering: boolean
  begun: number
  readonly waiting: (() => void)[]
}

/**
 * Node parses all requests of a segment at once and keeps every answer until its peer reads it.
 * Here a request starts only after the kernel has taken the previous answer.
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

export type ParserStop = {
  /** Ends this; the chunk that is being parsed is restored, since it is not HTTP. */
  readonly lift: () => void
  /** Lets the parser read a body of `length` bytes, and nothing behind it. */
  readonly passBody: (length: number) => void
}

/**
 * A chunk may hold two thousand requests. Node would parse them all, and create an error for each
 * that is cut off: 50 ms of CPU. Everything after the first `requestsMax` is made unreadable, so
 * that the parser stops there. The server's own listener must already be attached: this one runs
 * before it. Both functions can be called while the head's chunk is being parsed.
 */
export function stopParserAfter(socket: Socket, requestsMax: number): ParserStop {
  let show = (_length: number): number => 0
  /** What is left of the body; `undefined` where none was announced. */
  let bodyLeft: number | undefined
  /** The end of a head may come in pieces. */
  let before = Buffer.alloc(0)
  const hide = (chunk: Buffer) => {
    const end =
      bodyLeft === undefined
        ? endOfHeads(chunk, requestsMax, before)
        : Math.min(bodyLeft, chunk.length)
    if (bodyLeft !== undefined) bodyLeft -= end
    else before = Buffer.concat([before, chunk.subarray(-2)]).subarray(-2)
    if (end === chunk.length) return
    const rest = Buffer.from(chunk.subarray(end))
    chunk.fill(0, end)
    show = (length) => rest.copy(chunk, end, 0, Math.min(length, rest.length))
  }
  // Node's listener has parsed the chunk by now. Do not keep the copy until the next one.
  const forget = () => {
    show = () => 0
  }
  socket.prependListener('data', hide).on('data', forget)
  return {
    lift() {
      socket.off('data', hide).off('data', forget)
      show(Infinity)
    },
    passBody(length) {
      bodyLeft = length - show(length)
    },
  }
}

/**
 * The offset after the chunk's first `headsMax` heads; its length if it has fewer. `before` is the end
 * of the chunk before, at most two bytes, since the end of a head may come in pieces.
 */
function endOfHeads(chunk: Buffer, headsMax: number, before: Buffer): number {
  const text = Buffer.concat([before, chunk])
  let at = -1
  for (let n = 0; n < headsMax; n += 1) {
    at = text.indexOf(HEAD_END, at + 1)
    if (at === -1) return chunk.length
  }
  return at + HEAD_END.length - before.length
}

/** The end of a head; a lone line feed would end a line, too. */
const HEAD_END = '\n\r\n'
