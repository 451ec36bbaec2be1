/** Idle memory: what a proxy holds for connections that carry nothing any more. */

import { setTimeout as sleep } from 'node:timers/promises'
import { report, startPeer, takingPart, type Bench, type Contender } from '../contenders.ts'
import type { Peer } from '../peers/peer.ts'
import { memoryOf, openFilesMax, peakRssKib, type Memory } from '../processes.ts'

const CONNECTIONS = [0, 1000, 5000, 10_000]
const CONNECTIONS_QUICK = [0, 1000]
/** A proxied connection takes two sockets, and a few files are not connections. */
const OTHER_FILES = 200
const RUNS = 2
/** A collection may come a while after the last byte. */
const SETTLE_MS = 2000
const SETTLE_MS_QUICK = 1000
/** Each connection has carried one message before it is left alone. */
const MESSAGE_BYTES = 1024
const KIB = 1024

const PSS = 'idle memory, proportional'
export const RSS = 'idle memory, resident'
export const EACH = 'idle memory, each connection over the base'
export const STORM = 'memory, all connections at once'

export const measureIdle = async (bench: Bench): Promise<void> =>
  measureIdleAt(bench, bench.options.isQuick ? CONNECTIONS_QUICK : CONNECTIONS)

/** The memory at each of these numbers of connections, as far as this machine has the open files. */
export const measureIdleAt = async (bench: Bench, wanted: readonly number[]): Promise<void> => {
  const credentials = await bench.cluster.credentials('repeated')
  const possible = Math.floor((openFilesMax() - OTHER_FILES) / 2)
  const steps = wanted.map((count) => Math.min(count, possible))
  for (const peer of takingPart(bench, 'idle')) {
    const runs: (readonly Memory[])[] = []
    for (let run = 0; run < (bench.options.isQuick ? 1 : RUNS); run += 1) {
      runs.push(await measurePeer(bench, peer, credentials, steps))
    }
    keep(bench, peer.name, steps, runs)
    if (!bench.options.isQuick) await measureStorm(bench, peer, credentials, steps.at(-1) ?? 0)
  }
}

/** The most memory a fresh process ever has when all workers come at once. */
const measureStorm = async (
  bench: Bench,
  peer: Peer,
  credentials: string,
  connections: number,
): Promise<void> => {
  const name = connections.toLocaleString('en')
  const rounds: number[] = []
  for (let run = 0; run < RUNS; run += 1) {
    let contender: Contender | undefined
    try {
      contender = await startPeer(bench, peer, false)
      const all = { connections, atOnce: connections, ...contender.target(credentials) }
      await bench.load.run({ do: 'open', group: peer.name, ...all })
      rounds.push(peakRssKib(contender.pids()) / KIB)
    } catch (error) {
      report(bench, { table: STORM, case: name, peer: peer.name }, error)
    }
    await bench.load.run({ do: 'close', group: peer.name })
    await contender?.stop()
  }
  if (rounds.length === 0) return
  const of = { section: 'idle', table: STORM, case: name, unit: 'peak RSS in MiB' } as const
  bench.results.push({ ...of, peer: peer.name, rounds })
}

/** The memory of a fresh process at each step. */
const measurePeer = async (
  bench: Bench,
  peer: Peer,
  credentials: string,
  steps: readonly number[],
): Promise<readonly Memory[]> => {
  const measured: Memory[] = []
  let contender: Contender | undefined
  let open = 0
  try {
    contender = await startPeer(bench, peer, false)
    for (const connections of steps) {
      await openMore(bench, contender, credentials, connections - open)
      open = connections
      await sleep(bench.options.isQuick ? SETTLE_MS_QUICK : SETTLE_MS)
      measured.push(memoryOf(contender.pids()))
    }
  } catch (error) {
    report(bench, { table: PSS, case: `after ${open} connections`, peer: peer.name }, error)
  }
  await bench.load.run({ do: 'close', group: peer.name })
  await contender?.stop()
  return measured
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
  for (const [step, connections] of steps.entries()) {
    const name = connections.toLocaleString('en')
    const push = (
      table: string,
      unit: string,
      figureOf: (memory: Memory, base: Memory) => number,
    ): void => {
      // A run that failed earlier has no result for this step.
      const rounds = runs.flatMap(({ 0: base, [step]: memory }) =>
        base === undefined || memory === undefined ? [] : [figureOf(memory, base)],
      )
      if (rounds.length === 0) return
      bench.results.push({ section: 'idle', table, case: name, unit, peer, rounds })
    }
    push(RSS, 'RSS in MiB', ({ rssKib }) => rssKib / KIB)
    push(PSS, 'PSS in MiB', ({ pssKib }) => pssKib / KIB)
    if (connections === 0) continue
    push(EACH, 'PSS in KiB', ({ pssKib }, base) => (pssKib - base.pssKib) / connections)
  }
}
