/** Puts the observers together: metrics, audit, and what the edge tells its decisions to. */

import type { Config } from '../config/schema.ts'
import { Audit } from '../observe/audit.ts'
import type { Carried, MetricSources } from '../observe/metric-sources.ts'
import { createMetrics } from '../observe/metrics.ts'
import { createRecorder, type Recorder } from '../observe/recorder.ts'
import type { Surroundings } from './surroundings.ts'

export function composeObserve(config: Config, around: Surroundings, sources: () => MetricSources) {
  const { clock, log, version, writeAudit } = around
  const { allowedIdentities, auditLog } = config.k8sTrust
  const metrics = createMetrics({
    version: version.version,
    namespaces: allowedIdentities
      .map(({ namespace }) => namespace)
      .filter((namespace) => !/[*?]/.test(namespace)),
    sources,
  })
  const audit = new Audit({ clock, write: writeAudit, isEnabled: () => auditLog })
  const recorder = createRecorder({ metrics, audit, log })
  let ended: Carried = { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 }
  const counting: Recorder = {
    ...recorder,
    closed(closed) {
      ended = sumCarried([ended, closed.counts])
      recorder.closed(closed)
    },
  }
  const carried = (live: Iterable<Carried>) => sumCarried([ended, ...live])
  return { metrics, audit, recorder: counting, carried }
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
