/** Puts the admin port together: what readiness means, and what is served there. */

import { adminConnectionsMax } from '../edge/admin-connections.ts'
import { createAdminPort, type AdminPort } from '../edge/admin-port.ts'
import { DrainProofs } from '../edge/drain-proof.ts'
import { checkGateway } from '../edge/gateway-check.ts'
import { createReadiness } from '../edge/readiness.ts'
import { shareAnswer } from '../edge/shared-answer.ts'
import type { Jwks } from '../kube/jwks.ts'
import type { OwnCredentials } from '../kube/own-credentials.ts'
import type { PodWatch } from '../kube/pod-watch.ts'
import type { Metrics } from '../observe/metrics.ts'
import { readOpenFilesMax } from '../lib/open-files.ts'
import type { PeerErrors } from '../lib/peer-errors.ts'
import { isLoopback } from '../lib/address.ts'
import type { AssertionSigner } from '../tunnel/assertion.ts'
import { createAcceptErrorLog } from '../edge/accept-errors.ts'
import type { Drain } from '../admissions/drain.ts'
import type { OpenClaw } from './openclaw.ts'
import type { LiveConfig } from './live-config.ts'
import type { Runtime } from './runtime.ts'

/** A render of the metrics takes about 3 ms of the loop. */
const METRICS_RATE = { ratePerSecond: 10, burst: 100 }
/** Each check of the gateway is a connection to it. */
const GATEWAY_CHECK_RATE = { ratePerSecond: 10, burst: 100 }

type Parts = {
  readonly metrics: Metrics
  readonly signer: AssertionSigner
  readonly jwks: Jwks
  readonly watch: PodWatch
  readonly openclaw: OpenClaw | undefined
  readonly watchPeer: PeerErrors['watch']
  readonly drain: Drain
  readonly credentials: Pick<OwnCredentials, 'token' | 'reread'>
}

export function composeAdminPort(
  live: LiveConfig,
  { clock, log, network, version, readFile, isLocalAddress = isLoopback }: Runtime,
  { metrics, signer, jwks, watch, openclaw, drain, credentials, watchPeer }: Parts,
): AdminPort {
  const url = new URL(live.config.gateway.url)
  const proofs = new DrainProofs({ clock, credentials })
  const { register } = metrics
  const renderMetrics = async () => ({
    contentType: register.contentType,
    body: await register.metrics(),
  })
  return createAdminPort({
    clock,
    connectionsMax: adminConnectionsMax(readOpenFilesMax(readFile)),
    watchPeer,
    onAcceptError: createAcceptErrorLog('admin', { clock, log }),
    renderMetrics: shareAnswer(renderMetrics, { clock, ...METRICS_RATE }),
    checks: createReadiness({
      drain,
      jwks,
      scopes: watch.scopes,
      isTrustEnabled: () => live.config.k8sTrust.enabled,
      checkGateway: shareAnswer(() => checkGateway({ url, clock, connect: network.connect }), {
        clock,
        ...GATEWAY_CHECK_RATE,
      }),
      operator: openclaw,
    }),
    version,
    jwks: signer.jwks,
    drain: {
      run() {
        log.warn(
          'drain requested: all workers are disconnected, and new ones are refused until a restart',
        )
        return drain.run()
      },
      isLocalAddress,
      isProven: (proof) => proofs.accept(proof),
    },
  })
}
