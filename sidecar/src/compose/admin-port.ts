/** Puts the admin port together: what readiness means, and what is served there. */

import { createAdminPort, type AdminPort } from '../edge/admin-port.ts'
import { isDrainProof } from '../edge/drain-proof.ts'
import { checkGateway } from '../edge/gateway-check.ts'
import type { Jwks } from '../kube/jwks.ts'
import type { OwnCredentials } from '../kube/own-credentials.ts'
import type { PodWatch } from '../kube/pod-watch.ts'
import type { Metrics } from '../observe/metrics.ts'
import { isLoopback } from '../tunnel/address.ts'
import type { AssertionSigner } from '../tunnel/assertion.ts'
import type { Drain } from './drain.ts'
import type { OpenClaw } from './openclaw.ts'
import type { Settings } from './settings.ts'
import type { Surroundings } from './surroundings.ts'

type Parts = {
  readonly metrics: Metrics
  readonly signer: AssertionSigner
  readonly jwks: Jwks
  readonly watch: PodWatch
  readonly openclaw: OpenClaw | undefined
  readonly drain: Drain
  readonly credentials: Pick<OwnCredentials, 'token' | 'reread'>
}

/** An API server that goes away later does not make the sidecar unready: its streams live on. */
export function composeAdminPort(
  settings: Settings,
  { clock, log, version, isLocalAddress = isLoopback }: Surroundings,
  { metrics, signer, jwks, watch, openclaw, drain, credentials }: Parts,
): AdminPort {
  const url = new URL(settings.config.gateway.url)
  const unless = (isKnown: boolean, objection: string) =>
    isKnown || !settings.config.k8sTrust.enabled ? undefined : objection
  return createAdminPort({
    renderMetrics: async () => ({
      contentType: metrics.register.contentType,
      body: await metrics.register.metrics(),
    }),
    checks: [
      { name: 'serving', check: () => (drain.isUnderWay() ? 'draining' : undefined) },
      {
        name: 'jwks',
        check: () => unless(jwks.ageMs !== undefined, 'no signing keys were fetched yet'),
      },
      { name: 'pods', check: () => unless(watch.isSynced, 'the pods were not listed yet') },
      { name: 'gateway', check: () => checkGateway({ url, clock }) },
      ...(openclaw === undefined ? [] : [{ name: 'operator', check: openclaw.findObjection }]),
    ],
    version,
    jwks: signer.jwks,
    drain: {
      run() {
        log.warn('asked to drain: every worker is sent away, and refused until a restart')
        return drain.run()
      },
      isLocalAddress,
      // The command has just read a token that may have been rotated since we did.
      isProven: (proof) =>
        isDrainProof(proof, credentials.token) ||
        (credentials.reread() && isDrainProof(proof, credentials.token)),
    },
  })
}
