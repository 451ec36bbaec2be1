/** Puts the way to the gateway together: the dialer, and the dialect the configuration asks for. */

import type { Dialect } from '../dialect/dialect.ts'
import { createStreamDialect } from '../dialect/stream.ts'
import type { PeerErrors } from '../lib/peer-errors.ts'
import { Places } from '../lib/semaphore.ts'
import type { AssertionSigner } from '../tunnel/assertion.ts'
import { createGatewayDialer } from '../tunnel/gateway-dialer.ts'
import { composeOpenClaw, type OpenClaw, type OpenClawParts } from './openclaw.ts'
import type { Settings } from './live-config.ts'
import type { Surroundings } from './runtime.ts'

/**
 * Handshakes under way at the gateway. It is one process, which more at once only slow down, until a
 * herd runs out of time as a whole and none of it gets in; a node's handshake is all computation.
 */
const AT_THE_DOOR_MAX = { stream: 64, openclaw: 8 }

type Parts = {
  readonly signer: AssertionSigner
  readonly watch: OpenClawParts['watch']
  /** Told of each socket to the gateway before it connects. */
  readonly watchPeer: PeerErrors['watch']
}

export type Speech = {
  readonly dialect: Dialect
  /** What goes with the `openclaw` protocol alone. */
  readonly openclaw: OpenClaw | undefined
}

export function composeDialect(
  settings: Settings,
  around: Surroundings,
  { signer, watch, watchPeer }: Parts,
): Speech {
  const { gateway, k8sTrust, listen } = settings.config
  const dial = createGatewayDialer({
    url: new URL(gateway.url),
    connectTimeoutMs: gateway.connectTimeout,
    workerProto: listen.tls === undefined ? 'http' : 'https',
    signer,
    clock: around.clock,
    watchPeer,
  })
  if (gateway.protocol === 'stream') {
    const { inBandCredentials } = k8sTrust
    const places = new Places(AT_THE_DOOR_MAX.stream)
    return {
      dialect: createStreamDialect({ inBandCredentials, dial, places }),
      openclaw: undefined,
    }
  }
  const places = new Places(AT_THE_DOOR_MAX.openclaw)
  const openclaw = composeOpenClaw({ settings, around, dial, places, watch })
  return { dialect: openclaw.dialect, openclaw }
}
