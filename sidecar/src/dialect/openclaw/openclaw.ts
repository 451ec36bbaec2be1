/** The `openclaw` dialect: ends a node's handshake here and starts another at the gateway. */

import type { Clock } from '../../lib/clock.ts'
import { DeadlineError, withDeadline } from '../../lib/deadline.ts'
import { denied, type Code } from '../../denial.ts'
import { Fault } from '../../fault.ts'
import type { Caller } from '../../tunnel/gateway-dialer.ts'
import type { Dialect, GrantedDialContext, Handshake, WorkerSide } from '../dialect.ts'
import type { Device, DeviceKeys } from './device-key.ts'
import type { Enrolment } from './enrolment.ts'
import { challengeFrame, readConnect, type ConnectRequest } from './frames.ts'
import type { Welcome } from './gateway-handshake.ts'
import type { GatewayTraits } from './gateway-traits.ts'
import { judgeConnect } from './presented-credential.ts'
import { refusalFrame } from './refusal.ts'
import type { Session, Sessions } from './sessions.ts'

export type OpenClawDialectOptions = {
  /** Whether a worker may present its token in its `connect` instead of at the upgrade. */
  readonly inBandCredentials: boolean
  /** Whether the gateway would take this address for one of its own host. */
  readonly isLocalAddress: (address: string) => boolean
  readonly deviceKeys: DeviceKeys
  readonly sessions: Pick<Sessions, 'open'>
  readonly enrolment: Pick<Enrolment, 'enter'>
  readonly traits: Pick<GatewayTraits, 'capabilities' | 'protocolMin'>
  readonly clock: Clock
  /** Returns an unguessable id. */
  readonly randomId: () => string
}

/**
 * How long the previous session may take to leave the gateway, in milliseconds: longer than any
 * close.
 */
const PREDECESSORS_MS_MAX = 8000

export function createOpenClawDialect(options: OpenClawDialectOptions): Dialect {
  return (worker) => handshakeOf(worker, options)
}

function handshakeOf(worker: WorkerSide, options: OpenClawDialectOptions): Handshake {
  let request: ConnectRequest | undefined
  let session: Session | undefined
  let hello = ''
  return {
    async readCredential() {
      const objection = findUpgradeObjection(worker, options)
      if (objection !== undefined) return denied(objection)
      const { capabilities } = options.traits
      const challenge = { nonce: options.randomId(), ts: options.clock.now(), capabilities }
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
        protocolMin: options.traits.protocolMin,
      })
    },

    async connectGateway(context) {
      if (request === undefined)
        throw new Error("the gateway was dialed before the worker's connect was read")
      const { allowedCommands, identity, judgeBy, revoke } = context
      const device = options.deviceKeys(identity)
      // Displaces the pod's previous session.
      const { namespace, serviceAccount, podName, podUid } = identity
      const pod = { namespace, serviceAccount, podName }
      const opened = options.sessions.open(device.id, { pod, podUid, allowedCommands, revoke })
      session = opened
      judgeBy(() => opened.findEnd())
      const welcome = await enterGateway({ worker, request, context, device, session, options })
      hello = welcome.hello
      return welcome.gateway
    },

    findObjection() {
      const isUpToDate = request !== undefined && session?.isUpToDate(request.params) === true
      return isUpToDate ? undefined : 'policy_changed'
    },

    release() {
      worker.send(hello)
      // Otherwise the token and the gateway's whole state would live as long as the stream.
      request = undefined
      session = undefined
      hello = ''
    },

    refusalMessage(code) {
      if (request === undefined) return undefined
      const { minProtocol, maxProtocol } = request.params
      const { protocolMin } = options.traits
      return refusalFrame(code, request.id, { minProtocol, maxProtocol, protocolMin })
    },
  }
}

/** What no `connect` could fix. */
function findUpgradeObjection(
  worker: WorkerSide,
  options: OpenClawDialectOptions,
): Code | undefined {
  // The gateway treats a browser's page differently from a node; no browser belongs here.
  if (worker.hasOrigin) return 'origin_not_allowed'
  if (options.isLocalAddress(worker.address)) return 'source_address_local'
  if (worker.token === undefined && !options.inBandCredentials) return 'credential_missing'
  return undefined
}

type GatewayEntry = {
  readonly worker: WorkerSide
  readonly request: ConnectRequest
  readonly context: GrantedDialContext
  readonly device: Device
  readonly session: Session
  readonly options: OpenClawDialectOptions
}

/** Waits until the pod's previous session is gone from the gateway, then enters. */
async function enterGateway(entry: GatewayEntry): Promise<Welcome> {
  const { worker, request, context, device, session, options } = entry
  const { clock, enrolment } = options
  try {
    await awaitCleared(session, clock, context.signal)
    const welcome = await enrolment.enter({
      caller: callerOf(worker),
      request,
      context,
      device,
      onOffer: (surface) => session.offer(surface),
    })
    session.bindSocket(welcome.gateway.socket)
    return welcome
  } catch (error) {
    session.abandon()
    throw error
  }
}

async function awaitCleared(session: Session, clock: Clock, signal: AbortSignal): Promise<void> {
  try {
    await withDeadline(clock, PREDECESSORS_MS_MAX, () => session.predecessorsClosed, signal)
  } catch (cause) {
    signal.throwIfAborted()
    if (!(cause instanceof DeadlineError)) throw cause
    throw new Fault('gateway_unreachable', "the pod's previous session did not end", { cause })
  }
}

/** No subprotocol: a node requests none, and the gateway knows none. */
const callerOf = ({ address, host, userAgent, traceparent }: WorkerSide): Caller => ({
  address,
  host,
  userAgent,
  traceparent,
  subprotocols: [],
})
