/** The `openclaw` dialect: ends a node's handshake here and begins another one at the gateway. */

import type { Clock } from '../../clock.ts'
import { withDeadline } from '../../deadline.ts'
import { denied, type Code } from '../../denial.ts'
import { Fault } from '../../fault.ts'
import type { Caller } from '../../tunnel/gateway-dialer.ts'
import type { Dialect, GrantedReach, Handshake, WorkerSide } from '../dialect.ts'
import type { DeviceKeys } from './device-key.ts'
import type { Enrolment } from './enrolment.ts'
import { challengeFrame, readConnect, type ConnectRequest } from './frames.ts'
import type { Welcome } from './gateway-handshake.ts'
import { judgeConnect } from './introduction.ts'
import { refusalFrame } from './refusal.ts'
import type { Session, Sessions } from './sessions.ts'

export type OpenClawDialectOptions = {
  /** Whether a worker may show its token in its `connect` instead of the upgrade. */
  readonly inBandCredentials: boolean
  /** Whether the gateway would take this address for its own host's. */
  readonly isLocalAddress: (address: string) => boolean
  readonly deviceKeys: DeviceKeys
  readonly sessions: Pick<Sessions, 'open'>
  readonly enrolment: Pick<Enrolment, 'enter'>
  readonly clock: Clock
  /** Nobody can guess the next one. */
  readonly randomId: () => string
}

/** How long the session before may take to leave the gateway, in milliseconds: longer than any close. */
const CLEARED_MS_MAX = 8000

export function createOpenClawDialect(options: OpenClawDialectOptions): Dialect {
  return (worker) => handshakeOf(worker, options)
}

function handshakeOf(worker: WorkerSide, options: OpenClawDialectOptions): Handshake {
  let request: ConnectRequest | undefined
  let hello = ''
  return {
    async introduce() {
      const objection = findUpgradeFault(worker, options)
      if (objection !== undefined) return denied(objection)
      const challenge = { nonce: options.randomId(), ts: options.clock.now() }
      worker.open(undefined)
      worker.send(challengeFrame(challenge))
      const message = await worker.nextMessage()
      if (!message.ok) return message
      const connect = readConnect(message.value)
      if (!connect.ok) return connect
      request = connect.value
      return judgeConnect(request.params, {
        challenge,
        shownToken: worker.token,
        nowMs: options.clock.now(),
      })
    },

    async reach(reach) {
      if (request === undefined)
        throw new Error('a worker is reached for before it introduced itself')
      const welcome = await enterGateway({ worker, request, reach, options })
      hello = welcome.hello
      return welcome.gateway
    },

    release() {
      worker.send(hello)
      // The token and the gateway's whole state would otherwise live as long as the stream.
      request = undefined
      hello = ''
    },

    refusalMessage: (code) => (request === undefined ? undefined : refusalFrame(code, request.id)),
  }
}

/** What no `connect` could make good. */
function findUpgradeFault(worker: WorkerSide, options: OpenClawDialectOptions): Code | undefined {
  // To a browser's page the gateway answers differently than to a node; none has business here.
  if (worker.hasOrigin) return 'origin_not_allowed'
  if (options.isLocalAddress(worker.address)) return 'source_address_local'
  if (worker.token === undefined && !options.inBandCredentials) return 'credential_missing'
  return undefined
}

type Entering = {
  readonly worker: WorkerSide
  readonly request: ConnectRequest
  readonly reach: GrantedReach
  readonly options: OpenClawDialectOptions
}

/** Displaces the pod's session before, waits until the gateway has seen it go, and enters. */
async function enterGateway({ worker, request, reach, options }: Entering): Promise<Welcome> {
  const { clock, deviceKeys, enrolment, sessions } = options
  const { allowedCommands, identity, revoke, signal } = reach
  const device = deviceKeys(identity)
  const session = sessions.open(device.id, { podUid: identity.podUid, allowedCommands, revoke })
  try {
    await awaitCleared(session, clock, signal)
    const welcome = await enrolment.enter({ caller: callerOf(worker), request, reach, device })
    session.hold(welcome.gateway.socket)
    return welcome
  } catch (error) {
    session.abandon()
    throw error
  }
}

async function awaitCleared(session: Session, clock: Clock, signal: AbortSignal): Promise<void> {
  try {
    await withDeadline(clock, CLEARED_MS_MAX, () => session.cleared, signal)
  } catch (cause) {
    signal.throwIfAborted()
    throw new Fault('gateway_unreachable', 'the session before does not end', { cause })
  }
}

/** No subprotocol: a node asks for none, and the gateway knows none. */
const callerOf = ({ address, host, userAgent, traceparent }: WorkerSide): Caller => ({
  address,
  host,
  userAgent,
  traceparent,
  subprotocol: undefined,
})
