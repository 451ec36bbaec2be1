/** A live sidecar outlives a fixed seed of hostile connections, requests and gateways. */

import { test } from 'tap'
import { playRound } from '../fuzz/round.ts'
import { LIVE_TARGETS } from '../fuzz/targets.ts'

const SEED = 20_261_128

for (const { name, open } of LIVE_TARGETS) {
  test(name, async (t) => {
    const ground = await open({ asProcess: false })
    t.teardown(ground.close)
    for (const property of ground.properties) {
      t.equal(await playRound(ground, property, { seed: SEED }), undefined, property.promise)
    }
  })
}
