/** The same in 100 worlds of five namespaces, which a seed repeats. */

import { test } from 'tap'
import { live, PHASES, STATES } from '../kit/namespace-worlds.ts'
import { SeededRandom } from '../kit/soak.ts'

const NAMESPACES = 5
const GROUPS = 10
const WORLDS_A_GROUP = 10

for (let group = 0; group < GROUPS; group += 1) {
  test(`of five namespaces the healthy ones have all they need, seeds of group ${group}`, async (t) => {
    for (let n = 0; n < WORLDS_A_GROUP; n += 1) {
      const seed = group * WORLDS_A_GROUP + n
      const random = new SeededRandom(seed)
      const pick = <T>(from: readonly T[]) => from[Math.floor(random.next() * from.length)] as T
      const states = Array.from({ length: NAMESPACES }, () => pick(STATES))
      const phase = pick(PHASES)
      await t.test(`seed ${seed}, ${phase}: ${states.join(', ')}`, (world) =>
        live(world, states, phase),
      )
    }
  })
}
