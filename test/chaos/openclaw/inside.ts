/** In the namespace of the run: one real gateway and one real node through all scenarios. */

import { parseArgs } from 'node:util'
import { raisePods } from '../../kit/namespace.ts'
import { startProductRig } from '../../openclaw/product-rig.ts'
import { PINNED_RUN } from '../../openclaw/suite-plan.ts'
import { tell } from '../played.ts'
import { playProductDay } from './day.ts'
import { describeProductScenario, drawProductScenario } from './schedule.ts'

const { values } = parseArgs({
  options: {
    main: { type: 'string', default: '' },
    seed: { type: 'string', default: '' },
    scenarios: { type: 'string', default: '' },
  },
})
const [first, scenarios] = [Number(values.seed), Number(values.scenarios)]
/** Not judged: a first start takes five seconds on an idle machine, and minutes on a very busy one. */
const FIRST_START_MS = 400_000

raisePods([values.main, PINNED_RUN.gateway.entry])
const rig = await startProductRig(PINNED_RUN, values.main)
const totals = { passed: 0, failed: 0, skipped: 0 }
const real = await rig.startRealNode(rig.createPod('real-node'))
await rig.usable(real.name, FIRST_START_MS)
for (let seed = first; seed < first + scenarios; seed += 1) {
  const scenario = drawProductScenario(seed)
  const played = await playProductDay(scenario, rig, real)
  tell(played, describeProductScenario(scenario), totals)
}
await rig.stop()
await new Promise((resolve) => process.send?.(totals, resolve))
process.exit(totals.failed === 0 ? 0 : 1)
