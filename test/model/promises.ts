/** What the model promises, by the number that it gives each promise, and how much of the world is in it. */

export const PROMISES: Readonly<Record<number, string>> = {
  1: 'a stream is open only while all that the sidecar knows allows it',
  2: 'no verdict is kept for a pod that is known to be gone',
  3: 'no revoked admission is let in',
  4: 'a drain ends whatever it finds, and nothing is let in after it',
  5: 'nobody is let in whose pod or account was gone two seconds before, unless nobody could be asked, and then not for long',
  6: 'a node has at most one session at the gateway',
  7: 'no stream outlives its pod or account by more than a watch can be dead without a sign',
}

/** The promise that holds in the end and not at each moment. */
export const LIVENESS = 'an entitled worker gets in, once nothing more happens to it'

/** States and events of the automaton, in the order of their numbers in the model. */
export const PHASES = ['out', 'begun', 'reviewed', 'bound', 'in', 'revoked', 'leaving'] as const
export const EVENTS = [
  'begins',
  'is reviewed',
  'is recalled',
  'is bound',
  'is admitted',
  'ends',
  'is revoked: pod',
  'is revoked: ending',
  'is revoked: account',
  'is revoked: policy',
  'is revoked: drain',
  'is revoked: displaced',
  'is revoked: worker',
  'is revoked: lifetime',
] as const

export type Phase = (typeof PHASES)[number]
export type AdmissionEvent = (typeof EVENTS)[number]

/** One part of the world that is explored as a whole. */
export type Exploration = {
  readonly name: string
  readonly flags: readonly string[]
  /** Flags of the verifier. */
  readonly build: readonly string[]
  readonly run: readonly string[]
  /** Takes minutes: by hand. */
  readonly isDeep?: true
}

const SAFETY = ['-DSAFETY', '-O1']
const FAIR = ['-DNFAIR=3', '-O1']
const DEPTH = '-m1000000'

export const EXPLORATIONS: readonly Exploration[] = [
  {
    name: '2 pods, 2 admissions of each, any 1 trouble',
    flags: ['-DTROUBLES=1', '-DOBSERVED'],
    build: SAFETY,
    run: [DEPTH],
  },
  {
    name: '1 pod, 2 admissions, any 3 troubles',
    flags: ['-DTROUBLES=3', '-DONE_POD', '-DOBSERVED'],
    build: SAFETY,
    run: [DEPTH],
  },
  {
    name: '1 pod, 2 admissions, any 2 troubles, with fairness',
    flags: ['-DTROUBLES=2', '-DONE_POD', '-DLIVENESS'],
    build: FAIR,
    run: [DEPTH, '-a', '-f'],
  },
  {
    name: '2 pods, 2 admissions of each, any 2 troubles',
    flags: ['-DTROUBLES=2'],
    build: [...SAFETY, '-DHC4'],
    run: [DEPTH, '-w27'],
    isDeep: true,
  },
  {
    name: '2 pods, 2 admissions of each, any 1 trouble, with fairness',
    flags: ['-DTROUBLES=1', '-DLIVENESS'],
    build: [...FAIR, '-DCOLLAPSE'],
    run: [DEPTH, '-a', '-f'],
    isDeep: true,
  },
]
