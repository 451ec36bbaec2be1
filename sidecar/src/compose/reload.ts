/** The reload: a new policy and new certificates, without losing a stream that may stay. */

import type { Config } from '../config/schema.ts'
import type { WorkerPort } from '../edge/worker-port.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { OpenClaw } from './openclaw.ts'
import type { Pods } from './pods.ts'
import type { Settings } from './settings.ts'
import type { Surroundings } from './surroundings.ts'
import { readTls } from './tls.ts'

type Parts = {
  readonly settings: Settings
  readonly around: Surroundings
  readonly metrics: Metrics
  readonly workerPort: WorkerPort
  readonly pods: Pods
  readonly openclaw: OpenClaw | undefined
}

/** The last good configuration stays in force, and the failure is counted, until a good one comes. */
export function createReload(parts: Parts) {
  const { settings, around, metrics, workerPort, pods, openclaw } = parts
  const { log, readFile } = around
  const read = (load: () => Config): Config | undefined => {
    try {
      const next = load()
      const tls = readTls(settings.config, readFile)
      if (tls !== undefined) workerPort.renewTls(tls)
      return next
    } catch (error) {
      metrics.configReloads.inc({ outcome: 'failed' })
      log.error(
        { reason: String(error) },
        'the new configuration is not valid: the old one stays in force',
      )
      return undefined
    }
  }
  return (load: () => Config): void => {
    const next = read(load)
    if (next === undefined) return
    const waitingForRestart = settings.apply(next)
    pods.onPolicyChanged()
    openclaw?.onPolicyChanged()
    metrics.configReloads.inc({ outcome: 'ok' })
    log.info({ waitingForRestart }, 'the configuration was reloaded')
  }
}
