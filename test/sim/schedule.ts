/** What happens in a day, drawn from its seed: a list that can be shortened without changing the rest. */

import { SeededRandom } from '../kit/soak.ts'

const KINDS = [
  'create-pod',
  'delete-pod',
  'terminate-pod',
  'recreate-pod',
  'move-pod',
  'delete-account',
  'reload',
  'rotate-worker-token',
  'rotate-own-token',
  'refuse-own-token',
  'kubelet-stalls',
  'second-process',
  'token-of-a-gone-pod',
  'short-token',
  'api-status',
  'api-hang',
  'api-delay',
  'api-cut',
  'api-garbage',
  'review-outage',
  'api-restart',
  'api-other-keys',
  'rotate-keys',
  'drop-watches',
  'mute-watches',
  'lag-watches',
  'expire-watches',
  'hold',
  'vanish',
  'slow',
  'cut',
  'reset',
  'half-close',
  'gateway-behavior',
  'gateway-leave',
  'gateway-restart',
  'gateway-refuse',
  'gateway-forget',
  'clock-step',
  'attack',
] as const

export type EventKind = (typeof KINDS)[number]

export type WorldEvent = {
  /** Since the start of the day, in milliseconds. */
  readonly atMs: number
  readonly kind: EventKind
  /** Three numbers from 0 to 1 that say how: they are the event's own, whatever else happens. */
  readonly dice: readonly [number, number, number]
}

/**
 * What gateway and workers speak, and how a worker shows its token. An older gateway of OpenClaw has
 * no bootstrap tokens: it enrols a device by an approval.
 */
export type Speech = 'stream' | 'stream-in-band' | 'openclaw' | 'openclaw-older'

export type Schedule = {
  readonly speech: Speech
  readonly pods: number
  /** The mean time between two events, in milliseconds: faults and pauses are as long as fits it. */
  readonly meanMs: number
  readonly events: readonly WorldEvent[]
}

export const DAY_MS = 3_600_000
const EVENTS_MAX = 300
const PODS_MIN = 5
const PODS_MAX = 50

const SPEECHES = [
  'stream',
  'stream',
  'stream-in-band',
  'openclaw',
  'openclaw',
  'openclaw-older',
] as const satisfies readonly Speech[]

/** The mean time between two events of a day, in milliseconds. */
const MEANS_MS = [300, 600, 1000, 1000, 2000, 4000] as const

/** Common events are drawn more often: these are in the bag this many times. */
const WEIGHTS: Partial<Record<EventKind, number>> = {
  'create-pod': 16,
  'delete-pod': 8,
  'terminate-pod': 6,
  'recreate-pod': 6,
  'rotate-worker-token': 3,
  'move-pod': 2,
  reload: 2,
  attack: 8,
  'second-process': 3,
  'token-of-a-gone-pod': 6,
  'short-token': 3,
  'lag-watches': 2,
}

const BAG = KINDS.flatMap((kind) => Array.from({ length: WEIGHTS[kind] ?? 1 }, () => kind))

export const drawSchedule = (seed: number): Schedule => {
  const random = new SeededRandom(seed)
  const pods = PODS_MIN + Math.floor(random.next() ** 3 * (PODS_MAX - PODS_MIN + 1))
  // Some days are crowded, and others have long silences.
  const meanMs = pick(MEANS_MS, random.next())
  const speech = pick(SPEECHES, random.next())
  const events: WorldEvent[] = []
  let atMs = 3000
  while (events.length < EVENTS_MAX) {
    atMs += Math.floor(-Math.log(1 - random.next()) * meanMs)
    if (atMs >= DAY_MS) break
    const kind = pick(BAG, random.next())
    events.push({ atMs, kind, dice: [random.next(), random.next(), random.next()] })
  }
  return { speech, pods, meanMs, events }
}

const pick = <T>(items: readonly T[], die: number): T => items[Math.floor(die * items.length)] as T
