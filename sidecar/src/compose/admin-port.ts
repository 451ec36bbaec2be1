/** Puts the admin port together: what readiness means, and what is served there. */

import { ADMIN_CONNECTIONS_MAX, createAdminPort, type AdminPort } from '../edge/admin-port.ts'
import { DrainProofs } from '../edge/drain-proof.ts'
import { checkGateway } from '../edge/gateway-check.ts'
import { shareAnswer } from '../edge/shared-answer.ts'
import type { Jwks } from '../kube/jwks.ts'
import type { OwnCredentials } from '../kube/own-credentials.ts'
import type { PodWatch } from '../kube/pod-watch.ts'
import { TokenBuckets } from '../token-buckets.ts'
import type { Metrics } from '../observe/metrics.ts'
import { readOpenFilesMax } from '../open-files.ts'
import type { PeerErrors } from '../peer-errors.ts'
import { isLoopback } from '../tunnel/address.ts'
import type { AssertionSigner } from '../tunnel/assertion.ts'
import { createAcceptErrorLog } from './accept-errors.ts'
import type { Drain } from './drain.ts'
import type { OpenClaw } from './openclaw.ts'
import type { Settings } from './settings.ts'
import type { Surroundings } from './surroundings.ts'

/** A render of the metrics takes about 3 ms of the loop. */
const METRICS_RATE = { ratePerSecond: 10, burst: 100 }
/** Each check of the gateway is a connection to it. */
const GATEWAY_CHECK_RATE = { ratePerSecond: 10, burst: 100 }
/** The admin port may take this share of the descriptors; a worker's stream takes two. */
const ADMIN_DESCRIPTORS_SHARE = 1 / 16
const ADMIN_CONNECTIONS_MIN = 4
/** Reads of our token that wrong proofs may cause: each blocks the loop for milliseconds. */
const REREADS = { ratePerSecond: 1, burst: 5 }

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

/** An API server that goes away later does not make the sidecar unready: its streams live on. */
export function composeAdminPort(
  settings: Settings,
  { clock, log, version, readFile, isLocalAddress = isLoopback }: Surroundings,
  { metrics, signer, jwks, watch, openclaw, drain, credentials, watchPeer }: Parts,
): AdminPort {
  const url = new URL(settings.config.gateway.url)
  const proofs = new DrainProofs(clock)
  const rereads = new TokenBuckets({ ...REREADS, clock })
  const unless = (isKnown: boolean, objection: string) =>
    isKnown || !settings.config.k8sTrust.enabled ? undefined : objection
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
    checks: [
      { name: 'serving', check: () => (drain.isUnderWay() ? 'draining' : undefined) },
      {
        name: 'jwks',
        check: () => unless(jwks.ageMs !== undefined, 'no signing keys have been fetched yet'),
      },
      { name: 'pods', check: () => unless(watch.isSynced, 'pods have not been listed yet') },
      {
        name: 'gateway',
        check: shareAnswer(() => checkGateway({ url, clock }), { clock, ...GATEWAY_CHECK_RATE }),
      },
      ...(openclaw === undefined ? [] : [{ name: 'operator', check: openclaw.findObjection }]),
    ],
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
      // The command has just read a token that may have been rotated since we did.
      isProven: (proof) =>
        proofs.accept(proof, credentials.token) ||
        (rereads.take('') && credentials.reread() && proofs.accept(proof, credentials.token)),
    },
  })
}

/** Few descriptors make it few connections: idle ones must not keep workers out. */
const adminConnectionsMax = (openFilesMax: number): number =>
  Math.max(
    ADMIN_CONNECTIONS_MIN,
    Math.min(ADMIN_CONNECTIONS_MAX, Math.floor(openFilesMax * ADMIN_DESCRIPTORS_SHARE)),
  )
