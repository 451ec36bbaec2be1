/** Puts the observers together: metrics, audit, and what the edge tells its decisions to. */

import { HOSTING_ROUTES } from '../dialect/openclaw/hosting-routes.ts'
import { Audit } from '../observe/audit.ts'
import type { MetricSources } from '../observe/metric-sources.ts'
import { FaultLog } from '../observe/fault-log.ts'
import { createMetrics } from '../observe/metrics.ts'
import { RecentRefusals } from '../observe/recent-refusals.ts'
import { TlsFailures } from '../observe/tls-failures.ts'
import { createRecorder } from '../observe/recorder.ts'
import { isGlob } from '../lib/glob.ts'
import { RelaySum } from '../lib/relay-totals.ts'
import { PeerErrors } from '../lib/peer-errors.ts'
import type { LiveConfig } from './live-config.ts'
import type { Runtime } from './runtime.ts'

type Known = {
  /** Called at each scrape only. */
  readonly sources: () => MetricSources
  readonly addressesOf: (podUid: string) => readonly string[]
}

export function composeObserve(live: LiveConfig, runtime: Runtime, known: Known) {
  const { clock, log, version, writeAudit } = runtime
  const { allowedIdentities } = live.config.k8sTrust
  const metrics = createMetrics({
    version: version.version,
    namespaces: allowedIdentities
      .map(({ namespace }) => namespace)
      .filter((namespace) => !isGlob(namespace)),
    routes: HOSTING_ROUTES,
    sources: known.sources,
  })
  const audit = new Audit({
    clock,
    write: writeAudit,
    isEnabled: () => live.config.k8sTrust.auditLog,
  })
  const faults = new FaultLog({ clock, log, message: 'admission fault' })
  const totals = new RelaySum()
  const refusals = new RecentRefusals(clock)
  const recorder = createRecorder({
    totals,
    metrics,
    audit,
    refusals,
    faults,
    isSourceUnenforced: () => live.config.k8sTrust.sourceAddress === 'report',
    addressesOf: known.addressesOf,
  })
  const peerErrors = new PeerErrors({
    clock,
    onSurvived(err) {
      metrics.uncaughtPeerErrors.inc()
      log.error({ err, stack: err.stack }, 'a socket error had no listener: socket destroyed')
    },
  })
  const tlsFailures = new TlsFailures({ clock, log, metrics })
  return { metrics, audit, faults, recorder, refusals, totals, peerErrors, tlsFailures }
}
