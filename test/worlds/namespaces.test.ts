/** Each namespace stands alone: what one of them lacks takes nothing from the others. */

import { test } from 'tap'
import { live, PHASES, STATES, type State } from '../kit/namespace-worlds.ts'

const worlds = (count: number): readonly (readonly State[])[] =>
  count === 0 ? [[]] : worlds(count - 1).flatMap((rest) => STATES.map((state) => [...rest, state]))

for (const phase of PHASES) {
  for (const count of [1, 2]) {
    test(`${phase}: whatever ${count} namespaces lack, the healthy ones have all they need`, async (t) => {
      for (const states of worlds(count)) {
        await t.test(states.join(', '), (world) => live(world, states, phase))
      }
    })
  }
}
