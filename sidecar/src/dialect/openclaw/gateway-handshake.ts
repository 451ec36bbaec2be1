/** The handshake with the gateway for one worker: its challenge, our `connect`, its hello. */

import * as z from 'zod'
import { Fault } from '../../fault.ts'
import type { GatewayConnection } from '../../tunnel/dial.ts'
import { readChallenge, readResponse, refusalCodeOf, type Challenge } from './frames.ts'
import { GatewayMessages } from './gateway-messages.ts'

/** The gateway's no to a `connect`; `reason` is its own code, for our log and our next step. */
export class ConnectRefused extends Fault {
  readonly reason: string

  constructor(reason: string) {
    super('gateway_refused', `the gateway refused the connect: ${reason}`)
    this.reason = reason
  }
}

export type Welcome = {
  /** Its socket stands right behind the hello. */
  readonly gateway: GatewayConnection
  /** What the worker may see of the hello. */
  readonly hello: string
}

export type GatewayHandshakeOptions = {
  readonly dialled: GatewayConnection
  readonly requestId: string
  readonly connectFrame: (challenge: Challenge) => string
  /** The hello lists every node there is, so it may be as large as any message. */
  readonly messageBytesMax: number
}

/** Frames that may come ahead of the one that is awaited. */
const OTHERS_MAX = 16

/** Throws a `Fault`; the caller then drops the socket. */
export async function greetGateway(options: GatewayHandshakeOptions): Promise<Welcome> {
  const messages = new GatewayMessages(options.dialled, options.messageBytesMax)
  const challenge = await awaitFrame(messages, readChallenge)
  messages.send(options.connectFrame(challenge))
  const response = await awaitFrame(messages, (text) => {
    const frame = readResponse(text)
    return frame?.id === options.requestId ? frame : undefined
  })
  if (!response.ok) throw new ConnectRefused(refusalCodeOf(response))
  return { gateway: messages.rest, hello: helloFrame(options.requestId, response.payload) }
}

async function awaitFrame<T>(
  messages: GatewayMessages,
  read: (text: string) => T | undefined,
): Promise<T> {
  for (let others = 0; others <= OTHERS_MAX; others += 1) {
    const frame = read(await messages.next())
    if (frame !== undefined) return frame
  }
  throw new Fault('gateway_refused', 'the gateway sent an unexpected message during the handshake')
}

/** Of `auth` no more than these members: the device tokens are among the others. */
const HELLO = z.looseObject({
  type: z.literal('hello-ok'),
  auth: z.object({
    method: z.string().optional(),
    role: z.literal('node'),
    scopes: z.array(z.string()).length(0),
  }),
})

/**
 * The hello without the device tokens, which would let the worker in past the sidecar. Whatever the
 * gateway believes, a session that is more than a node's is not handed out.
 */
function helloFrame(requestId: string, payload: unknown): string {
  const hello = HELLO.safeParse(payload)
  if (!hello.success) throw new Fault('gateway_refused', "the gateway's hello is not for a node")
  try {
    return JSON.stringify({ type: 'res', id: requestId, ok: true, payload: hello.data })
  } catch (cause) {
    // JSON can be read at any depth, and not be written.
    if (!(cause instanceof RangeError)) throw cause
    throw new Fault('gateway_refused', "the gateway's hello is nested too deeply", { cause })
  }
}
