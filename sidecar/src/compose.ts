/** Builds the sidecar from a `Config`: with its parts the only place that knows all rooms. */

import { composeAuthn } from './compose/authn.ts'
import { composeObserve } from './compose/observe.ts'
import type { Surroundings } from './compose/surroundings.ts'
import { composeWorkerPort } from './compose/worker-port.ts'
import type { Config } from './config/schema.ts'
import { createAdminPort } from './edge/admin-port.ts'
import { checkGateway } from './edge/gateway-check.ts'
import type { MetricSources } from './observe/metric-sources.ts'
import { createAssertionSigner } from './tunnel/assertion.ts'
import { Streams } from './tunnel/streams.ts'

export type Sidecar = {
  /** Opens both ports and resolves with the addresses they got. */
  readonly start: () => Promise<{ readonly workers: string; readonly admin: string }>
  /** Sends every worker away over the drain window, then stops. */
  readonly drain: () => Promise<void>
  /** Stops at once. */
  readonly stop: () => Promise<void>
}

const DRAIN_GRACE_MS = 5000

export async function compose(config: Config, around: Surroundings): Promise<Sidecar> {
  const { clock, log } = around
  const { limits } = config
  const streams = new Streams({
    streamsMax: limits.streams,
    streamsPerPodMax: limits.streamsPerPod,
    clock,
  })
  const observed = composeObserve(config, around, () => sources)
  const authn = composeAuthn(config, around, observed.metrics)
  const signer = await createAssertionSigner(config.k8sTrust.audiences[0] ?? '', clock)
  const workerPort = composeWorkerPort(config, around, { ...authn, ...observed, streams, signer })
  const sources: MetricSources = {
    carried: () => observed.carried(streams.listCounts()),
    streams: () => streams.size,
    pendingSockets: () => workerPort.pendingCount,
    cacheEntries: () => authn.verdicts.size,
    jwksAgeMs: () => authn.jwks.ageMs,
  }
  let isDraining = false
  const gatewayUrl = new URL(config.gateway.url)
  const adminPort = createAdminPort({
    renderMetrics: async () => ({
      contentType: observed.metrics.register.contentType,
      body: await observed.metrics.register.metrics(),
    }),
    checks: [
      { name: 'serving', check: () => (isDraining ? 'draining' : undefined) },
      { name: 'jwks', check: () => (authn.isReady() ? undefined : 'no signing keys fetched yet') },
      { name: 'gateway', check: () => checkGateway({ url: gatewayUrl, clock }) },
    ],
    version: around.version,
    jwks: signer.jwks,
  })
  let stopHeartbeat = () => {}

  const stop = async () => {
    stopHeartbeat()
    authn.jwks.stop()
    streams.destroyAll()
    await Promise.all([workerPort.close(), adminPort.close(), authn.closeKube()])
    observed.audit.flush()
  }
  return {
    async start() {
      const admin = await adminPort.listen(config.listen.admin.host, config.listen.admin.port)
      void authn.jwks.start()
      stopHeartbeat = streams.startHeartbeat(limits.idlePing)
      const { host, port } = config.listen.workers
      const workers = await workerPort.listen(host, port)
      log.info({ workers, admin, gateway: config.gateway.url }, 'listening')
      return { workers, admin }
    },
    async drain() {
      isDraining = true
      workerPort.startDraining()
      log.info({ streams: streams.size, windowMs: config.drain.window }, 'draining')
      await streams.drain(config.drain.window, DRAIN_GRACE_MS)
      await stop()
    },
    stop,
  }
}
