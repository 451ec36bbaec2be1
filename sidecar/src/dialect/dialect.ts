/** What a dialect is: how a worker introduces itself, and how we reach the gateway for it. */

import type { Code, Verdict } from '../denial.ts'
import type { GatewayConnection } from '../tunnel/dial.ts'
import type { Caller, DialContext } from '../tunnel/gateway-dialer.ts'

/** A worker in its handshake, as far as a dialect may read and drive it. */
export type WorkerSide = Caller & {
  /** The token presented at the upgrade, if any. */
  readonly token: string | undefined
  /** Whether the upgrade carried an `Origin`, which only browsers send. */
  readonly hasOrigin: boolean
  /** The `X-OpenClaw-Role` header of the upgrade. */
  readonly role: string | undefined
  /** Answers the upgrade with 101. At most once. */
  readonly open: (subprotocol: string | undefined) => void
  /** The next complete text message, within the limits for unauthenticated workers. */
  readonly nextMessage: () => Promise<Verdict<string>>
  readonly send: (text: string) => void
}

/** What a worker claims about itself; nothing is proven. */
export type PresentedCredential = {
  readonly token: string
  readonly role: string | undefined
}

/** The context for reaching the gateway. */
export type GrantedDialContext = DialContext & {
  /** The commands that the current policy allows. Called each time, since it may be reloaded. */
  readonly allowedCommands: () => readonly string[]
  /** Whether the policy lets this worker host sessions. Called each time. Default false. */
  readonly isHostingAllowed?: () => boolean
  /** Why the worker must not be let in any more: its pod, its token or the policy. Synchronous. */
  readonly findObjection: () => Code | undefined
  /** Ends this admission, or the stream it became. */
  readonly revoke: (code: Code) => void
  /**
   * Takes the question why the current policy does not allow what the worker offers. It is asked after
   * each change of the policy, for as long as anything of the worker is there. Synchronous.
   */
  readonly judgeBy: (findEnd: () => Code | undefined) => void
}

/** One worker's way through a dialect; the calls come in this order. */
export type Handshake = {
  readonly readCredential: () => Promise<Verdict<PresentedCredential>>
  /** Dials the gateway and does the handshake there. Throws `Fault`. */
  readonly connectGateway: (context: GrantedDialContext) => Promise<GatewayConnection>
  /** Why what the gateway was told about the worker is no longer true. Synchronous. */
  readonly findObjection: () => Code | undefined
  /**
   * Tells the worker that it is admitted; bytes flow from here on. Synchronous: nothing must come
   * in between.
   */
  readonly release: (gateway: GatewayConnection) => void
  /** The message a refused worker gets on its open WebSocket before the close frame. */
  readonly refusalMessage: (code: Code) => string | undefined
}

export type Dialect = (worker: WorkerSide) => Handshake
