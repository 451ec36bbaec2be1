/** The drain: asked for by a signal or by the command, whichever comes first, and done once. */

import type { Config } from '../config/schema.ts'
import type { WorkerPort } from '../edge/worker-port.ts'
import type { Log } from '../observe/log.ts'
import type { Drained, Streams } from './registry.ts'

type Parts = {
  readonly config: Config
  readonly log: Log
  readonly workerPort: Pick<WorkerPort, 'startDraining'>
  readonly streams: Pick<Streams, 'drain' | 'size'>
}

export type Drain = {
  readonly isUnderWay: () => boolean
  /** Resolves when every stream is gone. A second call waits for the first; nothing undoes it. */
  readonly run: () => Promise<Drained>
}

/** What is left so long after the window is cut off, in milliseconds. */
const DRAIN_GRACE_MS = 3000

export function createDrain({ config, log, workerPort, streams }: Parts): Drain {
  let drained: Promise<Drained> | undefined
  const drainOnce = async () => {
    const { window } = config.drain
    workerPort.startDraining()
    log.info({ streams: streams.size, windowMs: window }, 'draining')
    const outcome = await streams.drain(window, DRAIN_GRACE_MS)
    log.info(outcome, 'drained')
    return outcome
  }
  return { isUnderWay: () => drained !== undefined, run: () => (drained ??= drainOnce()) }
}
