/** How the stub treats a connection: the closed set of behaviors, and the plan that assigns them. */

type Plain<Kind extends string> = Kind extends unknown ? { readonly kind: Kind } : never

/** Answers the upgrade with something else than 101. */
export type StatusBehavior = {
  readonly kind: 'status'
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** Bytes sent right after the response, as a smuggler would. */
  readonly trailing?: string | Uint8Array
  /** Leaves the connection open afterwards. Default false. */
  readonly keepOpen?: boolean
}

/** Sends a close frame once `afterMessages` messages (default 0) have arrived. */
type CloseBehavior = {
  readonly kind: 'close'
  readonly code: number
  readonly reason?: string
  readonly afterMessages?: number
}

/** Destroys the TCP connection once `afterMessages` messages (default 0) have arrived. */
type DropBehavior = { readonly kind: 'drop'; readonly afterMessages?: number }

/**
 * Sends `messages` binary messages of `messageBytes` each, as fast as the reader takes them. Every
 * byte of message n (from 0) is n modulo 256.
 */
export type FloodBehavior = {
  readonly kind: 'flood'
  readonly messages: number
  readonly messageBytes: number
}

/** Picks the first subprotocol offered, or claims `name` whether or not it was offered. */
type SubprotocolBehavior = { readonly kind: 'subprotocol'; readonly name?: string }

/**
 * `accept` behaves; `stall` never answers the request; `refuse` destroys the TCP connection;
 * `wrong-accept` answers 101 with a bad `Sec-WebSocket-Accept`; `silent` reads nothing after its
 * 101; `mute` reads but never answers, neither pings nor closes; `extension` claims compression.
 */
export type Behavior =
  | Plain<'accept' | 'stall' | 'refuse' | 'wrong-accept' | 'silent' | 'mute' | 'extension'>
  | StatusBehavior
  | CloseBehavior
  | DropBehavior
  | FloodBehavior
  | SubprotocolBehavior

export type BehaviorName = Behavior['kind']

/** The behavior that a bare name stands for. */
const BY_NAME = {
  accept: { kind: 'accept' },
  stall: { kind: 'stall' },
  refuse: { kind: 'refuse' },
  status: { kind: 'status', status: 500, body: 'the stub was told to refuse' },
  'wrong-accept': { kind: 'wrong-accept' },
  close: { kind: 'close', code: 1000, reason: 'the stub was told to close' },
  drop: { kind: 'drop' },
  silent: { kind: 'silent' },
  flood: { kind: 'flood', messages: 1000, messageBytes: 65_536 },
  mute: { kind: 'mute' },
  extension: { kind: 'extension' },
  subprotocol: { kind: 'subprotocol' },
} as const satisfies { readonly [Name in BehaviorName]: Extract<Behavior, { kind: Name }> }

export const behaviorNames = Object.keys(BY_NAME) as readonly BehaviorName[]

export const isBehaviorName = (name: string): name is BehaviorName => Object.hasOwn(BY_NAME, name)

/** Word for word the answer of OpenClaw 2026.9.6 to forwarded headers from a stranger. */
export const UNATTRIBUTED: Behavior = {
  kind: 'status',
  status: 403,
  headers: { 'Content-Type': 'application/json; charset=utf-8', Connection: 'close' },
  body: JSON.stringify({
    error: {
      message:
        'Proxy client attribution is required. Configure gateway.trustedProxies narrowly and make the proxy overwrite or safely rebuild forwarded client headers.',
      type: 'proxy_attribution_required',
    },
  }),
}

const resolveBehavior = (behavior: Behavior | BehaviorName): Behavior =>
  typeof behavior === 'string' ? BY_NAME[behavior] : behavior

const PLANNED_MAX = 100_000

/** Assigns one behavior to each upgrade: first the planned ones, then the standing one. */
export class BehaviorPlan {
  #standing: Behavior
  #next: Behavior[] = []

  constructor(standing: Behavior | BehaviorName) {
    this.#standing = resolveBehavior(standing)
  }

  /** Without `connections` it applies to all that follow, and discards what was planned. */
  set(behavior: Behavior | BehaviorName, connections?: number): void {
    const resolved = resolveBehavior(behavior)
    if (connections === undefined) {
      this.#standing = resolved
      this.#next = []
      return
    }
    if (this.#next.length + connections > PLANNED_MAX) throw new RangeError('plan too long')
    for (let n = 0; n < connections; n += 1) this.#next.push(resolved)
  }

  take(): Behavior {
    return this.#next.shift() ?? this.#standing
  }
}
