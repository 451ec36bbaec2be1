/** The handshake with the gateway for one worker: its challenge, our `connect`, its hello. */

import * as z from 'zod'
import { Fault } from '../../fault.ts'
import { GatewayRefused } from '../../gateway-refusal.ts'
import type { GatewayConnection } from '../../tunnel/dial.ts'
import { readChallenge, readResponse, refusalCodeOf, type Challenge } from './frames.ts'
import { GatewayMessages } from './gateway-messages.ts'

/** The gateway refused a `connect`. For our log and our next step, never for a worker. */
export class ConnectRefused extends GatewayRefused {
  /** Its own code. */
  readonly reason: string
  /** Its own words; at most 1024 characters. */
  readonly text: string
  /** The oldest protocol it takes from a node, where it said so. */
  readonly protocolMin: number | undefined

  constructor(reason: string, text = '', protocolMin?: number) {
    super(reason, 'the gateway refused the connect')
    this.reason = reason
    this.text = text
    this.protocolMin = protocolMin
  }
}

export type Welcome = {
  /** Its socket is positioned right after the hello. */
  readonly gateway: GatewayConnection
  /** The part of the hello the worker may see. */
  readonly hello: string
}

export type GatewayHandshakeOptions = {
  readonly dialed: GatewayConnection
  readonly requestId: string
  readonly connectFrame: (challenge: Challenge) => string
  /** The hello lists every node, so it may be as large as any message. */
  readonly messageBytesMax: number
}

/** The most frames before the expected one. */
const OTHERS_MAX = 16

/** Throws a `Fault`; the caller then destroys the socket. */
export async function greetGateway(options: GatewayHandshakeOptions): Promise<Welcome> {
  const messages = new GatewayMessages(options.dialed, options.messageBytesMax)
  const challenge = await awaitFrame(messages, readChallenge)
  messages.send(options.connectFrame(challenge))
  const response = await awaitFrame(messages, (text) => {
    const frame = readResponse(text)
    return frame?.id === options.requestId ? frame : undefined
  })
  if (!response.ok) {
    const { message, details } = response.error ?? {}
    throw new ConnectRefused(refusalCodeOf(response), message, details?.minimumProbeProtocol)
  }
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

/** Keeps only these members of `auth`: the device tokens are among the others. */
const HELLO = z.looseObject({
  type: z.literal('hello-ok'),
  auth: z.object({
    method: z.string().optional(),
    role: z.literal('node'),
    scopes: z.array(z.string()).length(0),
  }),
})

/**
 * The hello without the device tokens, which would let the worker bypass the sidecar. Whatever the
 * gateway believes, a session with more than a node's rights is not handed out.
 */
function helloFrame(requestId: string, payload: unknown): string {
  const hello = HELLO.safeParse(payload)
  if (!hello.success) throw new Fault('gateway_refused', "the gateway's hello is not for a node")
  try {
    return JSON.stringify({ type: 'res', id: requestId, ok: true, payload: hello.data })
  } catch (cause) {
    // JSON of any depth can be parsed, but not serialized.
    if (!(cause instanceof RangeError)) throw cause
    throw new Fault('gateway_refused', "the gateway's hello is nested too deeply", { cause })
  }
}
