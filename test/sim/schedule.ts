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
  'api-status',
  'api-hang',
  'api-delay',
  'api-cut',
  'api-garbage',
  'review-outage',
  'api-restart',
  'rotate-keys',
  'drop-watches',
  'mute-watches',
  'expire-watches',
  'hold',
  'vanish',
  'slow',
  'cut',
  'reset',
  'gateway-behavior',
  'gateway-leave',
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

export type Schedule = { readonly pods: number; readonly events: readonly WorldEvent[] }

export const DAY_MS = 3_600_000
const EVENTS_MAX = 300
const PODS_MIN = 5
const PODS_MAX = 50

/** Common events are drawn more often: these are in the bag this many times. */
const WEIGHTS: Partial<Record<EventKind, number>> = {
  'create-pod': 16,
  'delete-pod': 8,
  'terminate-pod': 6,
  'recreate-pod': 6,
  'rotate-worker-token': 3,
  'move-pod': 2,
  reload: 2,
  attack: 10,
}

const BAG = KINDS.flatMap((kind) => Array.from({ length: WEIGHTS[kind] ?? 1 }, () => kind))

export const drawSchedule = (seed: number): Schedule => {
  const random = new SeededRandom(seed)
  const pods = PODS_MIN + Math.floor(random.next() ** 3 * (PODS_MAX - PODS_MIN + 1))
  // Some days are crowded, and others have long silences.
  const meanMs = [1000, 4000, 12_000, 40_000][Math.floor(random.next() * 4)] ?? 2000
  const events: WorldEvent[] = []
  let atMs = 3000
  while (events.length < EVENTS_MAX) {
    atMs += Math.floor(-Math.log(1 - random.next()) * meanMs)
    if (atMs >= DAY_MS) break
    const kind = BAG[Math.floor(random.next() * BAG.length)] ?? 'create-pod'
    events.push({ atMs, kind, dice: [random.next(), random.next(), random.next()] })
  }
  return { pods, events }
}
