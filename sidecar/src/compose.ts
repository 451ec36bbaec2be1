/** Builds the sidecar from a `Config`: with its parts the only place that knows all rooms. */

import { Drain } from './admissions/drain.ts'
import { composeAdminPort, composeReadiness } from './compose/admin-port.ts'
import { composeCluster } from './compose/cluster.ts'
import { composeLine } from './compose/line.ts'
import { createReload, LiveConfig } from './compose/live-config.ts'
import { composeObserve } from './compose/observe.ts'
import type { Runtime } from './compose/runtime.ts'
import { composeDialect, composeWorkerPort, composeWorkerWay } from './compose/worker-port.ts'
import type { Loaded } from './config/load.ts'
import type { Config } from './config/schema.ts'
import { CertificateWatch } from './edge/certificate-watch.ts'
import { isWithoutIpv6 } from './edge/fastify.ts'
import { judgeReadiness } from './edge/readiness.ts'
import { readTls } from './edge/tls.ts'
import { kindOf } from './kube/scope.ts'
import { ReadinessLog } from './observe/readiness-log.ts'
import type { MetricSources } from './observe/metric-sources.ts'
import { createAssertionSigner, NO_SIGNER } from './tunnel/assertion.ts'

export type Sidecar = {
  /** Opens both ports and resolves with the addresses they got. */
  readonly start: () => Promise<{ readonly workers: string; readonly admin: string }>
  /** Sends every worker away over the drain window, unless that was done on request, then stops. */
  readonly drain: () => Promise<void>
  /**
   * Puts what `load` returns in force, as far as that can be done under way, and reads the
   * certificates again. When `load` throws, the configuration stays as it was, and the certificates
   * are renewed all the same.
   */
  readonly reload: (load: () => Loaded) => void
  /**
   * Survives an uncaught `error` event of a peer's socket, which is then destroyed and counted. False
   * for everything else: that is a bug, and the process has to end.
   */
  readonly survive: (error: unknown, origin: NodeJS.UncaughtExceptionOrigin) => boolean
  /** Stops at once. */
  readonly stop: () => Promise<void>
}

export async function compose(config: Config, runtime: Runtime): Promise<Sidecar> {
  const { log } = runtime
  const parts = await composeParts(config, runtime)
  const { live, line, observed, cluster, openclaw, workerPort, signer } = parts
  const { certificates, tls, drain, checks, readinessLog } = parts
  const { metrics, peerErrors, refusals } = observed
  const { registry, watch, revocation, jwks } = line
  const adminPort = composeAdminPort(runtime, {
    metrics,
    registry,
    refusals,
    certificates,
    signer,
    jwks,
    watch,
    drain,
    checks,
    watchPeer: peerErrors.watch,
    credentials: cluster.credentials,
  })
  let stopHeartbeat = () => {}

  const start = async () => {
    const admin = await adminPort.listen(config.listen.admin.host, config.listen.admin.port)
    void jwks.start()
    live.announce()
    certificates.use(tls)
    revocation.start()
    openclaw?.start()
    stopHeartbeat = registry.startHeartbeat(config.limits.idlePing)
    const { host, port } = config.listen.workers
    const workers = await workerPort.listen(host, port)
    const asked = [config.listen.admin.host, host]
    if ([admin, workers].some((bound, at) => isWithoutIpv6(asked[at], bound))) {
      log.info('this machine has no IPv6: [::] is every IPv4 address')
    }
    log.info({ workers, admin, gateway: config.gateway.url }, 'listening')
    readinessLog.start()
    return { workers, admin }
  }
  let isStopped = false
  const stop = async () => {
    isStopped = true
    readinessLog.stop()
    observed.faults.stop()
    stopHeartbeat()
    jwks.stop()
    certificates.stop()
    revocation.stop()
    watch.stop()
    openclaw?.stop()
    registry.destroyAll()
    await Promise.all([workerPort.close(), adminPort.close(), cluster.close()])
    observed.audit.flush()
    observed.tlsFailures.flush()
  }
  const applyReload = createReload({ live, runtime, metrics, workerPort, certificates, tls })
  return {
    start,
    stop,
    async drain() {
      await drain.run()
      await stop()
    },
    reload(load) {
      // It would start the watches again, which nobody stops any more.
      if (isStopped) log.info('configuration not reloaded: the sidecar is stopping')
      else applyReload(load)
    },
    survive: (error, origin) => peerErrors.survive(error, origin),
  }
}

async function composeSigner({ gateway, k8sTrust }: Config, { clock }: Runtime) {
  if (!isAssertionSent(gateway)) return NO_SIGNER
  return createAssertionSigner(k8sTrust.audiences[0] ?? '', clock)
}

/** OpenClaw's gateway does not read it. */
const isAssertionSent = ({ protocol, assertion }: Config['gateway']): boolean =>
  assertion ?? protocol === 'stream'

/** Everything that works inside, put together and not yet started. */
async function composeParts(config: Config, runtime: Runtime) {
  const live = new LiveConfig(config)
  const observed = composeObserve(live, runtime, {
    sources: () => sources,
    addressesOf: (podUid) => watch.find(podUid)?.ips ?? [],
  })
  const { metrics, totals } = observed
  const watchPeer = observed.peerErrors.watch
  const cluster = composeCluster(config, runtime, metrics)
  const line = composeLine({ live, runtime, cluster, metrics })
  const { registry, verdicts, watch, jwks } = line
  const signer = await composeSigner(config, runtime)
  const way = composeWorkerWay(live, runtime, { metrics, watchPeer })
  const toGateway = { signer, watch, watchPeer, way, metrics }
  const { dialect, openclaw } = composeDialect(live, runtime, toGateway)
  const tls = readTls(config.listen.tls, runtime.readFile)
  const certificates = new CertificateWatch({ ...runtime, files: config.listen.tls })
  const workerPort = composeWorkerPort(live, runtime, {
    ...line,
    ...observed,
    dialect,
    watchPeer,
    tls,
  })
  const drain = new Drain({
    windowMs: config.drain.window,
    log: runtime.log,
    workerPort,
    registry,
  })
  const checks = composeReadiness(live, runtime, {
    drain,
    jwks,
    reviews: cluster.reviews,
    watch,
    way,
    openclaw,
  })
  const readinessLog = new ReadinessLog({ ...runtime, judge: () => judgeReadiness(checks) })
  const sources: MetricSources = {
    readiness: async () => (await judgeReadiness(checks)).results,
    ownTokenExpiresAt: () => cluster.credentials.expiresAt,
    carried: () => totals.with(registry.listCounts()),
    streams: () => registry.size,
    connectedWorkers: () => registry.countWorkers(),
    sessionHosting: () => openclaw?.summarizeHosting(),
    pendingSockets: () => workerPort.pendingCount,
    cacheEntries: () => verdicts.size,
    jwksAgeMs: () => jwks.ageMs,
    isReviewOnly: () => jwks.isReviewOnly,
    watchedPods: () => watch.size,
    watchStaleMs: () => watch.scopes.longestStaleForMs,
    scopes: () =>
      watch.scopes.listStates().map(({ scope, state }) => ({ kind: kindOf(scope), state })),
    certificates: () => certificates.states(),
    linesDropped: runtime.linesDropped ?? (() => ({ audit: 0, log: 0 })),
  }
  const built = { live, line, observed, cluster, openclaw, workerPort, signer }
  return { ...built, certificates, tls, drain, checks, readinessLog }
}
