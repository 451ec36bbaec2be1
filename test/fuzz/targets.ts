/** The fuzz targets, in the order in which they share the time of a run. */

import { claimsTarget } from './claims.ts'
import { configTarget } from './config.ts'
import { firstMessageTarget } from './first-message.ts'
import { framesTarget } from './frames.ts'
import { openclawTarget } from './openclaw.ts'
import type { Target } from './target.ts'

export const TARGETS: readonly Target[] = [
  framesTarget(),
  firstMessageTarget(),
  claimsTarget(),
  openclawTarget(),
  configTarget(),
]
