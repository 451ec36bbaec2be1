/** Builds the sidecar from a `Config`: with its parts the only place that knows all rooms. */

import { composeAdminPort } from './compose/admin-port.ts'
import { composeAuthn } from './compose/authn.ts'
import { composeCluster } from './compose/cluster.ts'
import { composeDialect } from './compose/dialect.ts'
import { createDrain } from './compose/drain.ts'
import { composeObserve } from './compose/observe.ts'
import { composePods } from './compose/pods.ts'
import { Settings } from './compose/settings.ts'
import type { Surroundings } from './compose/surroundings.ts'
import { createReload } from './compose/reload.ts'
import { composeWorkerPort } from './compose/worker-port.ts'
import type { Config } from './config/schema.ts'
import type { MetricSources } from './observe/metric-sources.ts'
import { createAssertionSigner } from './tunnel/assertion.ts'
import { Streams } from './tunnel/streams.ts'

export type Sidecar = {
  /** Opens both ports and resolves with the addresses they got. */
  readonly start: () => Promise<{ readonly workers: string; readonly admin: string }>
  /** Sends every worker away over the drain window, unless that was done on request, then stops. */
  readonly drain: () => Promise<void>
  /**
   * Puts what `load` returns in force, as far as that can be done under way, and reads the
   * certificates again. When it throws, everything stays as it was.
   */
  readonly reload: (load: () => Config) => void
  /**
   * Survives an uncaught `error` event of a peer's socket, which is then destroyed and counted. False
   * for everything else: that is a bug, and the process has to end.
   */
  readonly survive: (error: unknown, origin: NodeJS.UncaughtExceptionOrigin) => boolean
  /** Stops at once. */
  readonly stop: () => Promise<void>
}

export async function compose(config: Config, around: Surroundings): Promise<Sidecar> {
  const { log } = around
  const parts = await composeParts(config, around)
  const { settings, streams, observed, cluster, pods, authn, signer, openclaw, workerPort } = parts
  const { metrics, peerErrors } = observed
  const drainStreams = createDrain({ config, log, workerPort, streams })
  const adminPort = composeAdminPort(settings, around, {
    metrics,
    signer,
    jwks: authn.jwks,
    watch: pods.watch,
    openclaw,
    drain: drainStreams,
    watchPeer: peerErrors.watch,
    credentials: cluster.credentials,
  })
  let stopHeartbeat = () => {}

  const start = async () => {
    const admin = await adminPort.listen(config.listen.admin.host, config.listen.admin.port)
    void authn.jwks.start()
    pods.start()
    openclaw?.start()
    stopHeartbeat = streams.startHeartbeat(config.limits.idlePing)
    const { host, port } = config.listen.workers
    const workers = await workerPort.listen(host, port)
    log.info({ workers, admin, gateway: config.gateway.url }, 'listening')
    return { workers, admin }
  }
  let isStopped = false
  const stop = async () => {
    isStopped = true
    stopHeartbeat()
    authn.jwks.stop()
    pods.stop()
    openclaw?.stop()
    streams.destroyAll()
    await Promise.all([workerPort.close(), adminPort.close(), cluster.close()])
    observed.audit.flush()
  }
  const drain = async () => {
    await drainStreams.run()
    await stop()
  }
  const applyReload = createReload({ settings, around, metrics, workerPort, pods, openclaw })
  const reload = (load: () => Config) => {
    // It would start the watches again, which nobody stops any more.
    if (isStopped) log.info('configuration not reloaded: the sidecar is stopping')
    else applyReload(load)
  }
  const survive: Sidecar['survive'] = (error, origin) => peerErrors.survive(error, origin)
  return { start, drain, stop, reload, survive }
}

/** Everything that works inside, put together and not yet started. */
async function composeParts(config: Config, around: Surroundings) {
  const { clock } = around
  const { limits } = config
  const settings = new Settings(config)
  const streams = new Streams({
    streamsMax: limits.streams,
    // A pod of the openclaw protocol has one stream; those on their way in are counted by address.
    streamsPerPodMax:
      config.gateway.protocol === 'stream' ? limits.streamsPerPod : limits.pendingPerAddress,
    clock,
  })
  const observed = composeObserve(settings, around, () => sources)
  const { metrics } = observed
  const watchPeer = observed.peerErrors.watch
  const cluster = composeCluster(config, around, metrics)
  const pods = composePods({
    settings,
    around,
    cluster,
    streams,
    forgetPod(podUid) {
      authn.verdicts.invalidatePod(podUid)
      authn.voucher.forgetPod(podUid)
    },
    onPodGone: ({ namespace, serviceAccount, name, uid }) =>
      openclaw?.podGone({ namespace, serviceAccount, podName: name }, uid),
  })
  const { watch, binding } = pods
  const watchStaleMs = () => watch.staleForMs
  const authn = composeAuthn({ settings, around, cluster, metrics, watchStaleMs })
  const signer = await createAssertionSigner(config.k8sTrust.audiences[0] ?? '', clock)
  const { dialect, openclaw } = composeDialect(settings, around, { signer, watch, watchPeer })
  const workerPort = composeWorkerPort(settings, around, {
    ...authn,
    ...observed,
    binding,
    streams,
    dialect,
    watch,
    watchPeer,
  })
  const sources: MetricSources = {
    carried: () => observed.carried(streams.listCounts()),
    streams: () => streams.size,
    pendingSockets: () => workerPort.pendingCount,
    cacheEntries: () => authn.verdicts.size,
    jwksAgeMs: () => authn.jwks.ageMs,
    watchedPods: () => watch.size,
    watchStaleMs,
    linesDropped: around.linesDropped ?? (() => ({ audit: 0, log: 0 })),
  }
  return { settings, streams, observed, cluster, pods, authn, signer, openclaw, workerPort }
}
