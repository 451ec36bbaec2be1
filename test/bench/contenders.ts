/** Peers side by side: started together and measured in turns, so that all meet the same conditions. */

import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import type { Cluster } from './cluster.ts'
import type { Load, Target } from './load.ts'
import type { Options, SectionName } from './options.ts'
import type { Peer, RunningPeer } from './peers/peer.ts'
import { cpuMs, cpuMsAtRest } from './processes.ts'
import type { Fact, Problem, Result } from './results.ts'

export type Bench = {
  readonly options: Options
  readonly cluster: Cluster
  readonly load: Load
  readonly directory: string
  readonly peers: readonly Peer[]
  readonly results: Result[]
  readonly facts: Fact[]
  readonly problems: Problem[]
  readonly say: (line: string) => void
}

export type Contender = RunningPeer & {
  readonly name: string
  readonly target: (credentials: string) => Target
}

/** Each peer dials the echo server at a different address, so that none uses up another's ports. */
const UPSTREAM_HOST_FIRST = 100

export const startPeer = async (bench: Bench, peer: Peer, isTls: boolean): Promise<Contender> => {
  const { cluster, load, peers } = bench
  const host = `127.0.0.${UPSTREAM_HOST_FIRST + peers.indexOf(peer)}`
  const tls = isTls ? cluster.tls : undefined
  const running = await peer.start({
    cluster,
    upstream: `${host}:${load.echoPort}`,
    directory: mkdtempSync(join(bench.directory, 'peer-')),
    tls,
  })
  const { address } = running
  return {
    ...running,
    name: peer.name,
    target: (credentials) => ({
      address,
      credentials,
      ...(tls === undefined ? {} : { caFile: tls.caFile }),
    }),
  }
}

/** Starts the peers of a section, lets `measure` use them, and stops them whatever happens. */
export const withContenders = async (
  bench: Bench,
  { section, isTls }: { readonly section: SectionName; readonly isTls: boolean },
  measure: (contenders: readonly Contender[]) => Promise<void>,
): Promise<void> => {
  const contenders: Contender[] = []
  try {
    for (const peer of takingPart(bench, section)) {
      await startPeer(bench, peer, isTls).then(
        (contender) => contenders.push(contender),
        (error: unknown) =>
          report(bench, { table: section, case: 'start', peer: peer.name }, error),
      )
    }
    await measure(contenders)
  } finally {
    await Promise.all(contenders.map(({ stop }) => stop()))
  }
}

/** Something could not be measured: that is reported at once and kept, and the run goes on. */
export const report = (bench: Bench, where: Omit<Problem, 'reason'>, error: unknown): void => {
  const reason = error instanceof Error ? error.message : String(error)
  bench.problems.push({ ...where, reason })
  bench.say(`${where.table}, ${where.case}: ${where.peer} failed: ${reason}`)
}

export const takingPart = ({ peers }: Bench, section: SectionName): readonly Peer[] =>
  peers.filter(({ sections }) => sections === undefined || sections.includes(section))

export type Case = {
  readonly section: SectionName
  readonly table: string
  readonly name: string
  readonly unit: string
}

/** Whether the command line asks for this case. */
export const isWanted = ({ options: { cases } }: Bench, name: string): boolean =>
  cases.length === 0 || cases.some((text) => name.includes(text))

export type Steps<Value> = {
  /** Before the first round, such as opening connections and warming up. */
  readonly prepare?: (contender: Contender) => Promise<void>
  readonly measure: (contender: Contender, round: number) => Promise<Value>
  readonly finish?: (contender: Contender) => Promise<void>
}

/** Measures one case in interleaved rounds and keeps its figures. */
export const measureCase = async (
  bench: Bench,
  contenders: readonly Contender[],
  { unit, ...of }: Case,
  steps: Steps<number>,
): Promise<void> => {
  for (const [peer, rounds] of await measureRounds(bench, contenders, of, steps)) {
    bench.results.push({ section: of.section, table: of.table, case: of.name, unit, peer, rounds })
  }
}

/** The figures of each round by peer; a peer that fails leaves the case, and is named. */
export const measureRounds = async <Value>(
  bench: Bench,
  contenders: readonly Contender[],
  { table, name }: Pick<Case, 'table' | 'name'>,
  { prepare, measure, finish }: Steps<Value>,
): Promise<ReadonlyMap<string, readonly Value[]>> => {
  const values = new Map(contenders.map((contender) => [contender.name, [] as Value[]]))
  const attempt = async ({ name: peer }: Contender, step: () => Promise<void>): Promise<void> => {
    if (!values.has(peer)) return
    await step().catch((error: unknown) => {
      values.delete(peer)
      report(bench, { table, case: name, peer }, error)
    })
  }
  for (const contender of contenders) {
    if (prepare !== undefined) await attempt(contender, () => prepare(contender))
  }
  for (let round = 0; round < bench.options.rounds; round += 1) {
    for (const contender of rotate(contenders, round)) {
      await attempt(contender, async () => {
        values.get(contender.name)?.push(await measure(contender, round))
      })
    }
  }
  for (const contender of contenders) await finish?.(contender)
  return values
}

/** The first in one round is the last in the next. */
const rotate = <T>(all: readonly T[], by: number): readonly T[] => {
  const at = by % all.length
  return [...all.slice(at), ...all.slice(0, at)]
}

/** CPU time a peer spends while `work` runs and until it is at rest again, in milliseconds. */
export const cpuMsOf = async (
  { pids }: Contender,
  work: () => Promise<unknown>,
): Promise<number> => {
  const processes = pids()
  const before = cpuMs(processes)
  await work()
  return (await cpuMsAtRest(processes)) - before
}
