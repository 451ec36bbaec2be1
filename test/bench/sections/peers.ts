/** The run beside other products that ask who calls: what a connect, a stream and an end cost and take. */

import type { Bench } from '../contenders.ts'
import { measureConnects } from './connects.ts'
import { measurePlainEchoes } from './echo.ts'
import { measureIdleAt } from './idle.ts'
import { observeRefusals } from './refusals.ts'
import { measureRoundTrips } from './round-trip.ts'
import { measurePlainStreams } from './streams.ts'

const ECHOES = { connections: 64, sizes: [1024, 16 * 1024] }
const CONNECTIONS = [0, 1000, 5000]
const CONNECTIONS_QUICK = [0, 100]

const PARTS: readonly (readonly [name: string, measure: (bench: Bench) => Promise<void>])[] = [
  ['echoes', (bench) => measurePlainEchoes(bench, ECHOES)],
  ['streams', measurePlainStreams],
  ['round trips', measureRoundTrips],
  [
    'idle memory',
    (bench) => measureIdleAt(bench, bench.options.isQuick ? CONNECTIONS_QUICK : CONNECTIONS),
  ],
  ['connects', measureConnects],
  // Last, because it stops the API server.
  ['refusals and endings', observeRefusals],
]

export const measureBesidePeers = async (bench: Bench): Promise<void> => {
  for (const [name, measure] of PARTS) {
    bench.say(`  ${name}`)
    await measure(bench)
  }
}
