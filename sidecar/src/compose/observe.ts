/** Puts the observers together: metrics, audit, and what the edge tells its decisions to. */

import { Audit } from '../observe/audit.ts'
import type { Carried, MetricSources } from '../observe/metric-sources.ts'
import { createMetrics } from '../observe/metrics.ts'
import { createRecorder, type Recorder } from '../observe/recorder.ts'
import { PeerErrors } from '../peer-errors.ts'
import { TokenBuckets } from '../token-buckets.ts'
import type { Settings } from './settings.ts'
import type { Surroundings } from './surroundings.ts'

/** Faults logged a second, for each code. */
const FAULT_LOGS = { ratePerSecond: 1, burst: 10 }

export function composeObserve(
  settings: Settings,
  around: Surroundings,
  sources: () => MetricSources,
) {
  const { clock, log, version, writeAudit } = around
  const { allowedIdentities } = settings.config.k8sTrust
  const metrics = createMetrics({
    version: version.version,
    namespaces: allowedIdentities
      .map(({ namespace }) => namespace)
      .filter((namespace) => !/[*?]/.test(namespace)),
    sources,
  })
  const audit = new Audit({
    clock,
    write: writeAudit,
    isEnabled: () => settings.config.k8sTrust.auditLog,
  })
  const recorder = createRecorder({
    metrics,
    audit,
    log,
    faultLogs: new TokenBuckets({ ...FAULT_LOGS, clock }),
    isSourceUnenforced: () => settings.config.k8sTrust.sourceAddress === 'report',
  })
  let ended: Carried = { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }
  const counting: Recorder = {
    ...recorder,
    closed(closed) {
      ended = sumCarried([ended, closed.counts])
      recorder.closed(closed)
    },
  }
  const carried = (live: Iterable<Carried>) => sumCarried([ended, ...live])
  const peerErrors = new PeerErrors({
    clock,
    onSurvived(err) {
      metrics.uncaughtPeerErrors.inc()
      log.error({ err, stack: err.stack }, 'a socket error had no listener: socket destroyed')
    },
  })
  return { metrics, audit, recorder: counting, carried, peerErrors }
}

const sumCarried = (all: Iterable<Carried>): Carried => {
  const sum = { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }
  for (const carried of all) {
    sum.bytesUp += carried.bytesUp
    sum.bytesDown += carried.bytesDown
    sum.messagesUp += carried.messagesUp
    sum.messagesDown += carried.messagesDown
  }
  return sum
}
