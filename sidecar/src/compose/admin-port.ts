/** Puts the admin port together: what readiness means, and what is served there. */

import { adminConnectionsMax } from '../edge/admin-connections.ts'
import type { CertificateWatch } from '../edge/certificate-watch.ts'
import { createAdminPort, type AdminPort } from '../edge/admin-port.ts'
import { DrainProofs } from '../edge/drain-proof.ts'
import { checkGateway } from '../edge/gateway-check.ts'
import { createReadiness, type ReadinessCheck } from '../edge/readiness.ts'
import { createStatus } from '../edge/status.ts'
import { findStatusObjection } from '../edge/status-caller.ts'
import { shareAnswer } from '../edge/shared-answer.ts'
import type { WorkerWay } from '../edge/worker-way.ts'
import type { KubeClient } from '../kube/client.ts'
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
import type { AdmissionRegistry } from '../admissions/registry.ts'
import type { RecentRefusals } from '../observe/recent-refusals.ts'
import type { OpenClaw } from './openclaw.ts'
import type { LiveConfig } from './live-config.ts'
import type { Runtime } from './runtime.ts'

/** A render of the metrics takes about 3 ms of the loop. */
const METRICS_RATE = { ratePerSecond: 10, burst: 100 }
/** With ten thousand streams it takes the loop about as long. */
const STATUS_RATE = { ratePerSecond: 5, burst: 20 }
/** Each check of the gateway is a connection to it. */
const GATEWAY_CHECK_RATE = { ratePerSecond: 10, burst: 100 }

type Parts = {
  readonly metrics: Metrics
  readonly registry: AdmissionRegistry
  readonly refusals: RecentRefusals
  readonly certificates: CertificateWatch
  readonly signer: AssertionSigner
  readonly jwks: Jwks
  readonly watch: PodWatch
  readonly watchPeer: PeerErrors['watch']
  readonly drain: Drain
  readonly checks: readonly ReadinessCheck[]
  readonly credentials: Pick<OwnCredentials, 'token' | 'reread'>
}

type Known = {
  readonly drain: Drain
  readonly jwks: Jwks
  readonly reviews: KubeClient
  readonly watch: PodWatch
  readonly way: WorkerWay
  readonly openclaw: OpenClaw | undefined
}

/** What has to be true before workers are sent here. */
export function composeReadiness(
  live: LiveConfig,
  { clock, network }: Runtime,
  { drain, jwks, reviews, watch, way, openclaw }: Known,
): readonly ReadinessCheck[] {
  const url = new URL(live.config.gateway.url)
  return createReadiness({
    drain,
    jwks,
    reviews,
    scopes: watch.scopes,
    isTrustEnabled: () => live.config.k8sTrust.enabled,
    checkGateway: shareAnswer(() => checkGateway({ url, clock, connect: network.connect }), {
      clock,
      ...GATEWAY_CHECK_RATE,
    }),
    way,
    operator: openclaw,
  })
}

export function composeAdminPort(runtime: Runtime, parts: Parts): AdminPort {
  const { clock, log, version, readFile, isLocalAddress = isLoopback } = runtime
  const { metrics, signer, drain, checks, credentials, watchPeer } = parts
  const proofs = new DrainProofs({ clock, credentials })
  const { register } = metrics
  const renderMetrics = async () => ({
    contentType: register.contentType,
    body: await register.metrics(),
  })
  const status = createStatus({ ...parts, clock, checks, version: version.version })
  const objection = findStatusObjection(runtime)
  if (objection !== undefined) log.warn(objection)
  return createAdminPort({
    clock,
    connectionsMax: adminConnectionsMax(readOpenFilesMax(readFile)),
    watchPeer,
    onAcceptError: createAcceptErrorLog('admin', { clock, log }),
    renderMetrics: shareAnswer(renderMetrics, { clock, ...METRICS_RATE }),
    checks,
    status: {
      read: shareAnswer(status, { clock, ...STATUS_RATE }),
      objection,
    },
    isLocalAddress,
    version,
    jwks: signer.jwks,
    drain: {
      run() {
        log.warn(
          'drain requested: all workers are disconnected, and new ones are refused until a restart',
        )
        return drain.run()
      },
      isProven: (proof) => proofs.accept(proof),
    },
  })
}
