/** What the streams of a soak carry, and how they end. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { SeededRandom, SoakOptions, Plan } from '../../kit/soak.ts'

/**
 * A soak is long, not fast: the pauses of the streams are stretched, so that 500 of them leave a core of the
 * machine free.
 */
const STRETCH = 3
export const SOAK: SoakOptions = {
  pause: (ms) => sleep(STRETCH * ms),
  frameBytesMax: 48_000,
}
/** The fewest and the most frames that a stream carries each way: some seconds to two minutes. */
const FRAMES = [8, 130] as const
const VANISHING_SHARE = 0.2
/** More than a stream sends until its pod is deleted. */
const ENDLESS = 1_000_000

/** The code under which the sidecar counts the end of such a stream. */
export const CODE_OF_ENDING = {
  close: 'completed',
  'worker vanishes': 'worker_gone',
  'gateway vanishes': 'gateway_gone',
  revoked: 'pod_deleted',
} as const satisfies Record<Plan['ending'], string>

export const lastingPlan = (seed: number, random: SeededRandom): Plan => {
  const frames = FRAMES[0] + random.below(FRAMES[1] - FRAMES[0])
  if (random.next() >= VANISHING_SHARE) return { seed, frames, ending: 'close' }
  return { seed, frames, ending: random.next() < 0.5 ? 'worker vanishes' : 'gateway vanishes' }
}

/** A stream of a pod that is deleted while it is open. */
export const revokedPlan = (seed: number): Plan => ({ seed, frames: ENDLESS, ending: 'revoked' })
