/** The fuzz targets, in the order in which they share the time of a run. */

import { adminTarget } from './admin.ts'
import { claimsTarget } from './claims.ts'
import { configTarget } from './config.ts'
import { firstMessageTarget } from './first-message.ts'
import { framesTarget } from './frames.ts'
import { gatewayTarget } from './gateway.ts'
import { openclawTarget } from './openclaw.ts'
import type { Target } from './target.ts'
import { upgradeTarget } from './upgrade.ts'

/** Those that need no sockets. */
export const PURE_TARGETS: readonly Target[] = [
  framesTarget(),
  firstMessageTarget(),
  claimsTarget(),
  openclawTarget(),
  configTarget(),
]

/** Those against a live sidecar. */
export const LIVE_TARGETS: readonly Target[] = [upgradeTarget, adminTarget, gatewayTarget]

export const TARGETS: readonly Target[] = [...LIVE_TARGETS, ...PURE_TARGETS]
