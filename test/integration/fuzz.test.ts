/** A live sidecar outlives a fixed seed of hostile connections, requests and gateways. */

import { test } from 'tap'
import { playRound } from '../fuzz/round.ts'
import { LIVE_TARGETS } from '../fuzz/targets.ts'

const SEED = 20_261_128

for (const { name, open } of LIVE_TARGETS) {
  test(name, async (t) => {
    const rig = await open({ asProcess: false })
    t.teardown(rig.close)
    for (const property of rig.properties) {
      t.equal(await playRound(rig, property, { seed: SEED }), undefined, property.promise)
    }
  })
}
