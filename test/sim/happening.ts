/** What events of all kinds are made of. */

import type { WorldEvent } from './schedule.ts'
import type { Place, PodTruth } from './truth.ts'
import type { World } from './world.ts'

export type Dice = WorldEvent['dice']

export type Happening = (world: World, dice: Dice) => void

export const pick = <T>(items: readonly T[], die: number): T | undefined =>
  items[Math.floor(die * items.length)]

/** Longer troubles are rarer. */
export const lengthOf = ({ faultMsMax }: World, die: number): number =>
  200 + Math.floor(die ** 3 * faultMsMax)

export const withPod = (world: World, die: number, act: (pod: PodTruth) => void): void => {
  const pod = pick(world.livePods(), die)
  if (pod !== undefined) act(pod)
}

/** Something is wrong on the way to a peer, until it heals. */
export const trouble = (world: World, peer: Place, ms: number, heal = () => {}): void => {
  const end = world.truth.trouble(peer, world.now)
  world.later(ms, () => {
    heal()
    end()
  })
}
