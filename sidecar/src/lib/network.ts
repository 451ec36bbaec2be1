/** The one way the sidecar opens connections, so that tests can stand in for the network. */

import { connect, type NetConnectOpts, type Socket } from 'node:net'
import { buildConnector } from 'undici'

export type Network = {
  /** As Node's `net.connect`: to the gateway. */
  readonly connect: (options: NetConnectOpts) => Socket
  /** As undici's: to the API server, and for the operator channel. */
  readonly buildConnector: typeof buildConnector
}

/** The machine's own network. */
export const systemNetwork: Network = { connect, buildConnector }
