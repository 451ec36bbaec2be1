/** Idle memory: what a proxy holds for connections over which nothing comes any more. */

import { setTimeout as sleep } from 'node:timers/promises'
import { startPeer, takingPart, type Bench, type Contender } from '../contenders.ts'
import type { Peer } from '../peers/peer.ts'
import { memoryOf, openFilesMax, type Memory } from '../processes.ts'

const CONNECTIONS = [0, 1000, 5000, 10_000]
const CONNECTIONS_QUICK = [0, 1000]
/** Connections of a proxy are two sockets, and a few files are none. */
const OTHER_FILES = 200
const RUNS = 2
/** A collection may come a while after the last byte. */
const SETTLE_MS = 2000
/** Each connection has carried one message before it is left alone. */
const MESSAGE_BYTES = 1024
const KIB = 1024

const PSS = 'idle memory, all connections'
const EACH = 'idle memory, each connection over the base'
const RSS = 'resident memory, no connection'

export const measureIdle = async (bench: Bench): Promise<void> => {
  const credentials = await bench.cluster.credentials('repeated')
  const possible = Math.floor((openFilesMax() - OTHER_FILES) / 2)
  const steps = (bench.options.isQuick ? CONNECTIONS_QUICK : CONNECTIONS).map((count) =>
    Math.min(count, possible),
  )
  for (const peer of takingPart(bench, 'idle')) {
    const runs: (readonly Memory[])[] = []
    for (let run = 0; run < (bench.options.isQuick ? 1 : RUNS); run += 1) {
      runs.push(await measurePeer(bench, peer, credentials, steps))
    }
    keep(bench, peer.name, steps, runs)
  }
}

/** The memory of a fresh process at each step. */
const measurePeer = async (
  bench: Bench,
  peer: Peer,
  credentials: string,
  steps: readonly number[],
): Promise<readonly Memory[]> => {
  const contender = await startPeer(bench, peer, false)
  const measured: Memory[] = []
  try {
    let open = 0
    for (const connections of steps) {
      await openMore(bench, contender, credentials, connections - open)
      open = connections
      await sleep(SETTLE_MS)
      measured.push(memoryOf(contender.pids()))
    }
    return measured
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    bench.problems.push({ table: PSS, case: '', peer: peer.name, reason })
    return measured
  } finally {
    await bench.load.run({ do: 'close', group: peer.name })
    await contender.stop()
  }
}

const openMore = async (
  { load }: Bench,
  { name: group, target }: Contender,
  credentials: string,
  connections: number,
): Promise<void> => {
  if (connections === 0) return
  await load.run({ do: 'open', group, connections, ...target(credentials) })
  await load.run({ do: 'echo', group, payloadBytes: MESSAGE_BYTES, ms: 1 })
}

const keep = (
  bench: Bench,
  peer: string,
  steps: readonly number[],
  runs: readonly (readonly Memory[])[],
): void => {
  const push = (table: string, unit: string, connections: number, rounds: readonly number[]) =>
    bench.results.push({
      section: 'idle',
      table,
      case: connections.toLocaleString('en'),
      unit,
      peer,
      rounds,
    })
  for (const [step, connections] of steps.entries()) {
    const whole = runs.filter((run) => run.length > step)
    if (whole.length === 0) continue
    const pss = whole.map((run) => run[step]?.pssKib ?? Number.NaN)
    push(
      PSS,
      'PSS in MiB',
      connections,
      pss.map((kib) => kib / KIB),
    )
    if (connections === 0) {
      push(
        RSS,
        'RSS in MiB',
        0,
        whole.map((run) => (run[0]?.rssKib ?? Number.NaN) / KIB),
      )
      continue
    }
    const bases = whole.map((run) => run[0]?.pssKib ?? Number.NaN)
    push(
      EACH,
      'PSS in KiB',
      connections,
      pss.map((kib, run) => (kib - (bases[run] ?? Number.NaN)) / connections),
    )
  }
}
