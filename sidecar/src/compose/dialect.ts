/** Puts the way to the gateway together: the dialer, and the dialect the configuration asks for. */

import type { Dialect } from '../dialect/dialect.ts'
import { createStreamDialect } from '../dialect/stream.ts'
import type { AssertionSigner } from '../tunnel/assertion.ts'
import { createGatewayDialer } from '../tunnel/gateway-dialer.ts'
import { composeOpenClaw, type OpenClaw, type OpenClawParts } from './openclaw.ts'
import type { Settings } from './settings.ts'
import type { Surroundings } from './surroundings.ts'

type Parts = { readonly signer: AssertionSigner; readonly watch: OpenClawParts['watch'] }

export type Speech = {
  readonly dialect: Dialect
  /** What goes with the `openclaw` protocol alone. */
  readonly openclaw: OpenClaw | undefined
}

export function composeDialect(
  settings: Settings,
  around: Surroundings,
  { signer, watch }: Parts,
): Speech {
  const { gateway, k8sTrust, listen } = settings.config
  const dial = createGatewayDialer({
    url: new URL(gateway.url),
    connectTimeoutMs: gateway.connectTimeout,
    workerProto: listen.tls === undefined ? 'http' : 'https',
    signer,
    clock: around.clock,
  })
  if (gateway.protocol === 'stream') {
    const { inBandCredentials } = k8sTrust
    return { dialect: createStreamDialect({ inBandCredentials, dial }), openclaw: undefined }
  }
  const openclaw = composeOpenClaw({ settings, around, dial, watch })
  return { dialect: openclaw.dialect, openclaw }
}
