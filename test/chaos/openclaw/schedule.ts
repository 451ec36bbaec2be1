/** What happens in a scenario with the real OpenClaw, drawn from its seed alone. */

import { SeededRandom } from '../../kit/soak.ts'

/** The seed modulo their number is the first fault of a scenario. */
export const PRODUCT_KINDS = [
  'kill the gateway',
  'freeze the gateway',
  'kill the sidecar',
  'freeze the sidecar',
  'stop the API server',
] as const

export type ProductKind = (typeof PRODUCT_KINDS)[number]

type ProductFault = {
  readonly kind: ProductKind
  /** Since the nodes are in, in milliseconds. */
  readonly atMs: number
  readonly forMs: number
}

export type ProductScenario = {
  readonly seed: number
  readonly faults: readonly ProductFault[]
  /** When a node's pod is deleted: before, in or after the faults. */
  readonly deletionAtMs: number
}

const FAULT_AT_MS = [500, 2500] as const
const FAULT_MS = [1000, 8000] as const
const DELETION_AT_MS_MAX = 6000

export const drawProductScenario = (seed: number): ProductScenario => {
  const random = new SeededRandom(seed)
  // Neighbouring seeds begin alike.
  random.next()
  const between = (min: number, max: number): number => min + random.below(max - min + 1)
  const first = seed % PRODUCT_KINDS.length
  // The same twice would end when its first ends.
  const second = (first + between(1, PRODUCT_KINDS.length - 1)) % PRODUCT_KINDS.length
  const places = random.next() < 0.5 ? [first] : [first, second]
  const faults = places.flatMap((place) => {
    const kind = PRODUCT_KINDS[place]
    return kind === undefined
      ? []
      : [{ kind, atMs: between(...FAULT_AT_MS), forMs: between(...FAULT_MS) }]
  })
  return { seed, faults, deletionAtMs: between(0, DELETION_AT_MS_MAX) }
}

export const describeProductScenario = ({ faults, deletionAtMs }: ProductScenario): string => {
  const said = faults.map(({ kind, atMs, forMs }) => `${kind} at ${atMs} ms for ${forMs} ms`)
  return `${said.join('; ')}; a pod is deleted at ${deletionAtMs} ms`
}
