/** The `stream` dialect: identity at the upgrade or in a `connect.request`, then any bytes. */

import { denied, granted } from '../denial.ts'
import { CONNECT_ACCEPTED, connectRefused, readConnectRequest } from './connect-request.ts'
import { Fault } from '../fault.ts'
import type { Semaphore } from '../lib/semaphore.ts'
import type { GatewayConnection } from '../tunnel/dial.ts'
import type { Caller, GatewayDialer, DialContext } from '../tunnel/gateway-dialer.ts'
import type { Dialect, Handshake, WorkerSide } from './dialect.ts'

export type StreamDialectOptions = {
  /** Whether a worker may connect without a credential and present it in its first frame. */
  readonly inBandCredentials: boolean
  readonly dial: GatewayDialer
  /** Bounds the handshakes with the gateway at once. */
  readonly handshakes: Pick<Semaphore, 'acquire'>
}

export function createStreamDialect(options: StreamDialectOptions): Dialect {
  return (worker) =>
    worker.token === undefined ? inBand(worker, options) : atUpgrade(worker, options)
}

/** The worker gets its 101 only after the gateway has sent us one. */
function atUpgrade(worker: WorkerSide, options: StreamDialectOptions): Handshake {
  return {
    async readCredential() {
      const { role, token } = worker
      return token === undefined ? denied('credential_missing') : granted({ token, role })
    },
    connectGateway: (context) => dialInTurn(worker, context, options),
    findObjection: () => undefined,
    release: (gateway) => worker.open(gateway.subprotocol),
    refusalMessage: () => undefined,
  }
}

/** The `connect.request` is consumed: the gateway sees only what follows. */
function inBand(worker: WorkerSide, options: StreamDialectOptions): Handshake {
  return {
    async readCredential() {
      if (!options.inBandCredentials) return denied('credential_missing')
      worker.open(worker.subprotocols[0])
      const message = await worker.nextMessage()
      return message.ok ? readConnectRequest(message.value) : message
    },
    async connectGateway(context) {
      // The 101 promised the worker its first subprotocol before the gateway could be asked.
      const subprotocols = worker.subprotocols.slice(0, 1)
      const gateway = await dialInTurn(callerOf(worker, subprotocols), context, options)
      if (gateway.subprotocol === subprotocols[0]) return gateway
      gateway.socket.destroy()
      throw new Fault('gateway_refused', "The gateway did not select the worker's subprotocol.")
    },
    findObjection: () => undefined,
    release: () => worker.send(CONNECT_ACCEPTED),
    refusalMessage: connectRefused,
  }
}

const callerOf = (
  { address, host, userAgent, traceparent }: WorkerSide,
  subprotocols: readonly string[],
): Caller => ({ address, host, userAgent, traceparent, subprotocols })

/**
 * A burst of workers waits here, on their own time, instead of all running out of the gateway's.
 */
async function dialInTurn(
  caller: Caller,
  context: DialContext,
  { dial, handshakes }: StreamDialectOptions,
): Promise<GatewayConnection> {
  const release = await handshakes.acquire(context.signal)
  return dial(caller, context).finally(release)
}
