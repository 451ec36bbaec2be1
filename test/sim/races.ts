/** Events in which two things meet at the wrong moment, such as a review under way and a deletion. */

import { OFFERED } from './conversations.ts'
import { lengthOf, pick, trouble, withPod, type Happening } from './happening.ts'
import type { Race } from './schedule.ts'
import type { PodTruth } from './truth.ts'
import { ACCOUNTS, TOKEN_S, type World } from './world.ts'

/** A day without a pod, or whose pod has gone meanwhile, has nothing to change. */
type Change = (world: World, pod: PodTruth) => void

const isLive = ({ goneAt, terminatingAt }: PodTruth): boolean =>
  goneAt === undefined && terminatingAt === undefined

const SLOW_MS_MIN = 300
const SLOW_MS_MAX = 4000
const DELAY_MS = 2
/** Why a token is refused for another reason than its own, as a server with old keys would say it. */
const WRONG = 'invalid bearer token'
const GRACE_MS = 30_000

/** What can become untrue of a worker while it waits. */
const CHANGES: readonly Change[] = [
  (world, pod) => world.movePod(pod),
  (world, pod) => world.terminatePod(pod, GRACE_MS),
  (world, pod) => world.deletePod(pod, 20_000),
  (world, pod) => world.deleteAccount(pod.account, 20_000),
  (world, pod) => forbid(world, pod.account),
  // It may have begun with fewer.
  (world) => world.reload({ commands: OFFERED }),
]

const forbid = (world: World, account: string): void => {
  world.reload({ accounts: ACCOUNTS.filter((each) => each !== account) })
  world.later(5000, () => world.reload({ accounts: ACCOUNTS }))
}

const slowDown = (world: World, die: number, ms: number): void => {
  world.network.setDelay('gateway', SLOW_MS_MIN + Math.floor(die ** 2 * SLOW_MS_MAX))
  trouble(world, 'gateway', ms, () => world.network.setDelay('gateway', DELAY_MS))
}

export const RACE_HAPPENINGS: Readonly<Record<Race, Happening>> = {
  /** Something changes while a worker waits for the gateway. */
  'race-at-gateway': (world, [which, what, when]) =>
    withPod(world, which, (pod) => {
      const change = pick(CHANGES, what)
      const isWidening = change === CHANGES.at(-1)
      if (isWidening) world.reload({ commands: OFFERED.slice(1) })
      slowDown(world, when, 10_000)
      world.runSecond(pod, 12_000)
      world.later(500 + Math.floor(when * 6000), () => {
        if (isWidening || isLive(pod)) change?.(world, pod)
      })
    }),
  /** The same while a token that is new is under review. */
  'race-at-review': (world, [which, what, when]) =>
    withPod(world, which, (pod) => {
      // A review is given up after a second and a half, and asked for once more.
      const ms = 800 + Math.floor(when * 2000)
      world.api.setFault('tokenReviews', { kind: 'delay', ms })
      trouble(world, 'reviews', ms, () => world.api.clearFaults('tokenReviews'))
      world.runSecond(pod, 12_000, TOKEN_S)
      world.later(700, () => {
        if (isLive(pod)) pick(CHANGES, what)?.(world, pod)
      })
    }),
  /** A newer process displaces a session that the gateway does not let go, and the pod is deleted. */
  'displaced-and-gone': (world, [which, when, long]) =>
    withPod(world, which, (pod) => {
      world.network.hold('gateway')
      trouble(world, 'gateway', 7000, () => world.network.release('gateway'))
      world.runSecond(pod, 10_000)
      world.later(1200 + Math.floor(when * 2500), () => {
        if (isLive(pod)) world.deletePod(pod, lengthOf(world, long))
      })
    }),
  /** A worker comes again whose pod, or account, has gone behind a watch that is mute. */
  'silent-deletion': (world, [which, what, when]) =>
    withPod(world, which, (pod) => {
      // Its token has a verdict then.
      world.runSecond(pod, 5000)
      world.later(3000, () => {
        if (!isLive(pod)) return
        world.api.blackholeWatches(what < 0.5 ? 'pods' : 'serviceaccounts')
        trouble(world, 'watches', 1000)
        if (what < 0.5) world.deletePod(pod, 40_000)
        else world.deleteAccount(pod.account, 40_000)
        world.later(7000 + Math.floor(when * 10_000), () => world.runSecond(pod, 5000))
      })
    }),
  /** A deletion that no watch tells of: the next list does not have the object any more. */
  'missed-deletion': (world, [which, what]) =>
    withPod(world, which, (pod) => {
      world.api.blackholeWatches()
      if (what < 0.5) world.deletePod(pod, 20_000)
      else world.deleteAccount(pod.account, 20_000)
      world.api.expireWatches()
      world.api.dropWatches()
      trouble(world, 'watches', 1000)
    }),
  /** A watch tells of a namesake, and has not told that the one before is gone. */
  'lost-line': (world, [which, what]) =>
    withPod(world, which, (pod) => {
      trouble(world, 'watches', 1000)
      if (what < 0.5) {
        world.api.withoutLines(() => world.deletePod(pod, 10_000))
        world.createNamesake(pod)
        return
      }
      world.api.withoutLines(() => world.deleteAccount(pod.account, 0))
    }),
  /** The API server takes the requests for watches, and does not answer them; meanwhile a pod is deleted. */
  'unanswered-watch': (world, [which, , long]) =>
    withPod(world, which, (pod) => {
      world.api.dropWatches()
      world.api.setFault('watches', { kind: 'hang' })
      const ms = 1000 + Math.floor(long * 3000)
      trouble(world, 'opening', ms, () => world.api.clearFaults('watches'))
      world.later(800, () => {
        if (isLive(pod)) world.deletePod(pod, 40_000)
      })
    }),
  /** The API server refuses good tokens for a moment. */
  'wrong-verdict': (world, [which, , long]) =>
    withPod(world, which, (pod) => {
      world.api.setFault('tokenReviews', {
        kind: 'rewriteReview',
        rewrite: (review) => ({ ...review, status: { error: WRONG, user: {} } }),
      })
      const ms = 1000 + Math.floor(long * 3000)
      trouble(world, 'reviews', ms, () => world.api.clearFaults('tokenReviews'))
      world.runSecond(pod, 60_000, TOKEN_S)
    }),
  /** A token is shown for the first time when it has expired. */
  'late-token': (world, [which, much, long]) =>
    withPod(world, which, (pod) => {
      const expiresInS = 1 + Math.floor(much * 10)
      world.runLate(pod, { expiresInS, lateMs: 200 + Math.floor(long * 40_000) })
    }),
  /** A namesake comes while the gateway is still told to forget the device of the pod before. */
  'slow-removal': (world, [which, when, much]) =>
    withPod(world, which, (pod) => {
      slowDown(world, much, 15_000)
      world.deletePod(pod, 0)
      world.later(200 + Math.floor(when * 4000), () => world.createNamesake(pod))
    }),
}
