/** What happens in a scenario, drawn from its seed alone. */

import { SeededRandom } from '../kit/soak.ts'

/** Every kind of fault. The seed modulo their number is the first one of a scenario. */
export const KINDS = [
  'freeze the sidecar',
  'freeze the gateway',
  'freeze the API server',
  'delay the API server',
  'kill the sidecar',
  'stall the workers',
  'fill the disk of its files',
  'use up its descriptors',
  'lose packets of the workers',
  'kill the gateway',
  'slow DNS',
  'reset the gateway',
  'jump ahead',
  'kill the API server',
  'slow readers in little memory',
  'stall the API server',
  'terminate the sidecar',
  'reset the workers',
  'fill the disk of its audit',
  'lose packets of the API server',
  'stall the gateway',
  'lose the API server without a word',
  'no DNS',
  'delay the workers',
  'jump back',
  'reset the API server',
  'delay the gateway',
  'lose packets of the gateway',
] as const

export type Kind = (typeof KINDS)[number]

export type FaultPlan = {
  readonly kind: Kind
  /** Since the workers are in, in milliseconds. */
  readonly atMs: number
  readonly forMs: number
  /** From 0 to 1: how hard. */
  readonly force: number
}

/** A pod comes, or the one at this place of the living ones is deleted. */
type Churn = {
  readonly atMs: number
  readonly what: 'create' | 'delete'
  readonly die: number
}

export type Scenario = {
  readonly seed: number
  readonly pods: number
  readonly faults: readonly FaultPlan[]
  readonly churn: readonly Churn[]
}

const PODS_MIN = 4
const PODS_MAX = 10
const FAULTS_MAX = 3
const FAULT_AT_MS_MAX = 2500
const FAULT_MS_MIN = 400
const FAULT_MS_MAX = 6000
const CHURN_MIN = 2
const CHURN_MAX = 5
const CHURN_AT_MS_MAX = 7000

/** A sidecar that starts on half a configuration file ends, as it should. */
const NEVER_WITH_BROKEN_FILES: readonly Kind[] = ['kill the sidecar', 'terminate the sidecar']
const fits = (kind: Kind, others: readonly FaultPlan[]): boolean => {
  // The same twice would end when its first ends.
  const kinds = [kind, ...others.map((each) => each.kind)]
  if (new Set(kinds).size < kinds.length) return false
  const isBroken = kinds.includes('fill the disk of its files')
  return !isBroken || !NEVER_WITH_BROKEN_FILES.some((each) => kinds.includes(each))
}

export const drawScenario = (seed: number): Scenario => {
  const random = new SeededRandom(seed)
  // Neighbouring seeds begin alike.
  random.next()
  const between = (min: number, max: number): number => min + random.below(max - min + 1)
  const pods = between(PODS_MIN, PODS_MAX)
  const faults: FaultPlan[] = []
  const count = between(1, FAULTS_MAX)
  while (faults.length < count) {
    const kind = KINDS[faults.length === 0 ? seed % KINDS.length : random.below(KINDS.length)]
    const atMs = between(0, FAULT_AT_MS_MAX)
    // Mostly short, sometimes long.
    const forMs = FAULT_MS_MIN + Math.floor(random.next() ** 2 * (FAULT_MS_MAX - FAULT_MS_MIN))
    const force = random.next()
    if (kind !== undefined && fits(kind, faults)) faults.push({ kind, atMs, forMs, force })
  }
  const churn = Array.from({ length: between(CHURN_MIN, CHURN_MAX) }, () => ({
    atMs: between(0, CHURN_AT_MS_MAX),
    what: random.next() < 0.6 ? ('delete' as const) : ('create' as const),
    die: random.next(),
  }))
  return { seed, pods, faults, churn: churn.toSorted((a, b) => a.atMs - b.atMs) }
}

export const describeScenario = ({ pods, faults, churn }: Scenario): string => {
  const said = faults.map(
    ({ kind, atMs, forMs, force }) => `${kind} at ${atMs} ms for ${forMs} ms (${force.toFixed(2)})`,
  )
  const moves = churn.map(({ what, atMs }) => `${what} at ${atMs} ms`)
  return `${pods} pods; ${said.join('; ')}; pods: ${moves.join(', ')}`
}
