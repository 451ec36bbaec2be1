/** What a process gives the sidecar; everything that tests replace. */

import type { Clock } from '../lib/clock.ts'
import type { Network } from '../lib/network.ts'
import type { Interfaces } from '../lib/own-addresses.ts'
import type { Log } from '../observe/log.ts'
import type { LinesDropped } from '../observe/metric-sources.ts'

export type Runtime = {
  readonly clock: Clock
  readonly network: Network
  /** From 0 to 1. */
  readonly random: () => number
  readonly env: NodeJS.ProcessEnv
  readonly readFile: (path: string) => string
  readonly log: Log
  readonly writeAudit: (line: string) => void
  /** What the outputs of log and audit have dropped; none unless said otherwise. */
  readonly linesDropped?: () => LinesDropped
  /** Whether an address can only be the pod's own; loopback unless said otherwise. */
  readonly isLocalAddress?: (address: string) => boolean
  /** None unless said otherwise. */
  readonly interfaces?: Interfaces
  readonly version: { readonly version: string }
}
