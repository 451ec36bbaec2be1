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

export const measureBesidePeers = async (bench: Bench): Promise<void> => {
  await measurePlainEchoes(bench, ECHOES)
  await measurePlainStreams(bench)
  await measureRoundTrips(bench)
  await measureIdleAt(bench, bench.options.isQuick ? CONNECTIONS_QUICK : CONNECTIONS)
  await measureConnects(bench)
  // Last, because it stops the API server.
  await observeRefusals(bench)
}
