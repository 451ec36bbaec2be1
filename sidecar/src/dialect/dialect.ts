/** What a dialect is: how a worker introduces itself and how the gateway is reached for it. */

import type { Code, Verdict } from '../denial.ts'
import type { GatewayConnection } from '../tunnel/dial.ts'
import type { Caller, DialContext } from '../tunnel/gateway-dialer.ts'

/** A worker in its handshake, as far as a dialect may see and move it. */
export type WorkerSide = Caller & {
  /** The token shown at the upgrade, if one was. */
  readonly token: string | undefined
  /** Whether the upgrade carried an `Origin`, as only browsers send it. */
  readonly hasOrigin: boolean
  /** The `X-OpenClaw-Role` header of the upgrade. */
  readonly role: string | undefined
  /** Answers the upgrade with 101. At most once. */
  readonly open: (subprotocol: string | undefined) => void
  /** The next whole text message, within the limits for unauthenticated workers. */
  readonly nextMessage: () => Promise<Verdict<string>>
  readonly send: (text: string) => void
}

/** What a worker says of itself; nothing of it is proven. */
export type PresentedCredential = {
  readonly token: string
  readonly role: string | undefined
}

/** What the gateway is reached for. */
export type GrantedDialContext = DialContext & {
  /** The commands that the policy in force allows. Asked each time: it may be reloaded. */
  readonly allowedCommands: () => readonly string[]
  /** Ends this admission, or the stream it became. */
  readonly revoke: (code: Code) => void
}

/** One worker's way through a dialect, in this order. */
export type Handshake = {
  readonly readCredential: () => Promise<Verdict<PresentedCredential>>
  /** Dials the gateway and does the handshake there. Throws `Fault`. */
  readonly connectGateway: (context: GrantedDialContext) => Promise<GatewayConnection>
  /** Why what the gateway was told of the worker does not hold any more. Synchronous. */
  readonly findObjection: () => Code | undefined
  /** Tells the worker that it is in; bytes flow from here on. Synchronous: nothing may come between. */
  readonly release: (gateway: GatewayConnection) => void
  /** The message a refused worker gets on its open WebSocket ahead of the close frame. */
  readonly refusalMessage: (code: Code) => string | undefined
}

export type Dialect = (worker: WorkerSide) => Handshake
