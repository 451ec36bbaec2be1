/** The `stream` dialect: identity at the upgrade or in a first `connect.request`, then any bytes. */

import { denied, granted } from '../denial.ts'
import { CONNECT_ACCEPTED, connectRefused, readConnectRequest } from './connect-request.ts'
import { Fault } from '../fault.ts'
import type { GatewayDialer } from '../tunnel/gateway-dialer.ts'
import type { Dialect, Handshake, WorkerSide } from './dialect.ts'

export type StreamDialectOptions = {
  /** Whether a worker may come without a credential at the upgrade and show it in its first frame. */
  readonly inBandCredentials: boolean
  readonly dial: GatewayDialer
}

export function createStreamDialect(options: StreamDialectOptions): Dialect {
  return (worker) =>
    worker.token === undefined ? inBand(worker, options) : atUpgrade(worker, options)
}

/** The worker waits for its 101 until the gateway has given ours. */
function atUpgrade(worker: WorkerSide, options: StreamDialectOptions): Handshake {
  return {
    async introduce() {
      const { role, token } = worker
      return token === undefined ? denied('credential_missing') : granted({ token, role })
    },
    reach: (reach) => options.dial(worker, reach),
    release: (gateway) => worker.open(gateway.subprotocol),
    refusalMessage: () => undefined,
  }
}

/** The `connect.request` is consumed: the gateway sees what comes after it. */
function inBand(worker: WorkerSide, options: StreamDialectOptions): Handshake {
  return {
    async introduce() {
      if (!options.inBandCredentials) return denied('credential_missing')
      worker.open(worker.subprotocol)
      const message = await worker.nextMessage()
      return message.ok ? readConnectRequest(message.value) : message
    },
    async reach(reach) {
      const gateway = await options.dial(worker, reach)
      if (gateway.subprotocol === worker.subprotocol) return gateway
      // The worker was promised its subprotocol with the 101, before the gateway could be asked.
      gateway.socket.destroy()
      throw new Fault('gateway_refused', 'The gateway did not choose the subprotocol.')
    },
    release: () => worker.send(CONNECT_ACCEPTED),
    refusalMessage: connectRefused,
  }
}
