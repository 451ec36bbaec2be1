/** What happens in a day, drawn from its seed: a list that can be shortened without changing the rest. */

import { SeededRandom } from '../kit/soak.ts'

/** Two things that meet at the wrong moment. A day has some kinds of these, and those often. */
const RACES = [
  'race-at-gateway',
  'race-at-review',
  'displaced-and-gone',
  'silent-deletion',
  'missed-deletion',
  'lost-line',
  'unanswered-watch',
  'wrong-verdict',
  'late-token',
  'slow-removal',
] as const

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
  ...RACES,
] as const

export type EventKind = (typeof KINDS)[number]
export type Race = (typeof RACES)[number]

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
  /** `k8sTrust.expiredTokenReconnectGrace`, in seconds. */
  readonly expiredTokenGraceS: number
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

const EXPIRED_TOKEN_GRACES_S = [0, 0, 0, 120] as const

const RACES_OF_A_DAY = 3
const RACE_WEIGHT = 6

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
  ...Object.fromEntries(RACES.map((kind) => [kind, RACE_WEIGHT])),
}

/** Faults of one place. A day has them or has none of them: where all is in trouble, much is forgiven. */
const FAULTS = [
  [
    'api-status',
    'api-hang',
    'api-delay',
    'api-cut',
    'api-garbage',
    'review-outage',
    'api-restart',
    'refuse-own-token',
  ],
  ['api-other-keys', 'rotate-keys', 'rotate-own-token', 'clock-step', 'kubelet-stalls'],
  ['drop-watches', 'mute-watches', 'lag-watches', 'expire-watches'],
  ['hold', 'vanish', 'slow', 'cut', 'reset', 'half-close'],
  ['gateway-behavior', 'gateway-leave', 'gateway-restart', 'gateway-refuse', 'gateway-forget'],
] as const satisfies readonly (readonly EventKind[])[]

/** The share of days without any fault but those of their races. */
const CALM = 0.3

/** Swarm testing (Groce et al., 2012): each day leaves out some kinds of events, so that the others meet. */
const drawBag = (random: SeededRandom): readonly EventKind[] => {
  const isCalm = random.next() < CALM
  const left = new Set<EventKind>(RACES)
  for (const kinds of FAULTS) {
    const isLeft = random.next() < 0.5 || isCalm
    if (isLeft) for (const kind of kinds) left.add(kind)
  }
  for (let n = 0; n < RACES_OF_A_DAY; n += 1) left.delete(pick(RACES, random.next()))
  return KINDS.filter((kind) => !left.has(kind)).flatMap((kind) =>
    Array.from({ length: WEIGHTS[kind] ?? 1 }, () => kind),
  )
}

export const drawSchedule = (seed: number): Schedule => {
  const random = new SeededRandom(seed)
  const pods = PODS_MIN + Math.floor(random.next() ** 3 * (PODS_MAX - PODS_MIN + 1))
  // Some days are crowded, and others have long silences.
  const meanMs = pick(MEANS_MS, random.next())
  const speech = pick(SPEECHES, random.next())
  const expiredTokenGraceS = pick(EXPIRED_TOKEN_GRACES_S, random.next())
  const bag = drawBag(random)
  const events: WorldEvent[] = []
  let atMs = 3000
  while (events.length < EVENTS_MAX) {
    atMs += Math.floor(-Math.log(1 - random.next()) * meanMs)
    if (atMs >= DAY_MS) break
    const kind = pick(bag, random.next())
    events.push({ atMs, kind, dice: [random.next(), random.next(), random.next()] })
  }
  return { speech, pods, expiredTokenGraceS, meanMs, events }
}

const pick = <T>(items: readonly T[], die: number): T => items[Math.floor(die * items.length)] as T
