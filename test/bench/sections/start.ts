/** Time to work: from the start of a process to the first worker that is let in. */

import { setTimeout as sleep } from 'node:timers/promises'
import { report, startPeer, takingPart, type Bench } from '../contenders.ts'
import type { Peer } from '../peers/peer.ts'

const START = { table: 'time to work', case: 'from start to first admission' }

const ROUNDS_MAX = 7
/** Between two attempts: a process may listen before it can let anybody in. */
const RETRY_MS = 2
const ATTEMPTS_MAX = 2000

export const measureStarts = async (bench: Bench): Promise<void> => {
  const file = await bench.cluster.credentials('repeated')
  const values = new Map(takingPart(bench, 'start').map((peer) => [peer, [] as number[]]))
  for (let round = 0; round < Math.min(bench.options.rounds, ROUNDS_MAX); round += 1) {
    for (const [peer, rounds] of values) {
      await measureStart(bench, peer, file).then(
        (ms) => rounds.push(ms),
        (error: unknown) => {
          values.delete(peer)
          report(bench, { ...START, peer: peer.name }, error)
        },
      )
    }
  }
  for (const [{ name: peer }, rounds] of values) {
    bench.results.push({ section: 'start', ...START, unit: 'ms', peer, rounds })
  }
}

const measureStart = async (bench: Bench, peer: Peer, file: string): Promise<number> => {
  const startedAt = performance.now()
  const contender = await startPeer(bench, peer, false)
  try {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const one = { from: 0, count: 1, concurrency: 1, ...contender.target(file) }
      const { statuses = {} } = await bench.load.run({ do: 'handshakes', ...one })
      if (statuses['101'] === 1) return performance.now() - startedAt
      await sleep(RETRY_MS)
    }
    throw new Error('nobody was let in')
  } finally {
    await contender.stop()
  }
}
