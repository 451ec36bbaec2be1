/** The text messages of a connected gateway, one by one, until its bytes are relayed. */

import { Fault } from '../../fault.ts'
import type { GatewayConnection } from '../../tunnel/dial.ts'
import { BoundedReplies } from '../../websocket/bounded-replies.ts'
import { FirstMessageReader, type FirstMessage } from '../../websocket/first-message.ts'
import { textFrame } from '../../websocket/frames.ts'

/** The gateway sent a close frame in place of a message. */
export class HandshakeClosed extends Fault {
  /** Whether it was in place of an answer to us. */
  readonly isUnanswered: boolean

  constructor(isUnanswered: boolean) {
    super('gateway_refused', 'the gateway closed the stream during the handshake')
    this.isUnanswered = isUnanswered
  }
}

export class GatewayMessages {
  readonly #dialed: GatewayConnection
  readonly #bytesMax: number
  #head: Buffer
  #hasSent = false

  /** `bytesMax` bounds each message with the control frames before it. */
  constructor(dialed: GatewayConnection, bytesMax: number) {
    this.#dialed = dialed
    this.#bytesMax = bytesMax
    this.#head = dialed.head
  }

  /** The gateway with the bytes after the last message. Its socket is paused. */
  get rest(): GatewayConnection {
    return { ...this.#dialed, head: this.#head }
  }

  send(text: string): void {
    this.#hasSent = true
    this.#dialed.socket.write(textFrame(text, { masked: true }))
  }

  /** Waits for the next message. Rejects with a `Fault` if there is none. One call at a time. */
  next(): Promise<string> {
    const { socket } = this.#dialed
    const reader = new FirstMessageReader({ masked: false, bytesMax: this.#bytesMax })
    const replies = new BoundedReplies(socket)
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const settle = (outcome: Outcome) => {
      socket.off('data', accept).off('end', onEnd).off('close', onEnd)
      socket.pause()
      if ('text' in outcome) resolve(outcome.text)
      else if ('hasClosed' in outcome) reject(new HandshakeClosed(this.#hasSent))
      else reject(new Fault('gateway_refused', outcome.objection))
    }
    const onEnd = () => settle({ objection: 'the gateway disconnected during the handshake' })
    const accept = (chunk: Buffer) => {
      const read = reader.push(chunk)
      const outcome = outcomeOf(read)
      if (outcome === undefined) return replies.write(read.reply)
      replies.finish(read.reply)
      this.#head = read.kind === 'message' ? read.rest : Buffer.alloc(0)
      settle(outcome)
    }
    socket.on('data', accept).on('end', onEnd).on('close', onEnd)
    if (socket.destroyed || socket.readableEnded) onEnd()
    else socket.resume()
    const early = this.#head
    this.#head = Buffer.alloc(0)
    if (early.length > 0) accept(early)
    return promise
  }
}

type Outcome =
  | { readonly text: string }
  | { readonly objection: string }
  | { readonly hasClosed: true }

function outcomeOf(read: FirstMessage): Outcome | undefined {
  switch (read.kind) {
    case 'more':
      return undefined
    case 'message':
      return { text: read.text }
    case 'closed':
      return { hasClosed: true }
    case 'violation':
      return { objection: `the gateway violated the handshake: ${read.code}` }
  }
}
