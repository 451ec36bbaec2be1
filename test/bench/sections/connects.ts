/** Connects by what a proxy has to find out: its CPU time for many at once, and how long one alone takes. */

import type { CredentialKind } from '../api-server.ts'
import {
  cpuMsOf,
  isWanted,
  measureRounds,
  withContenders,
  type Bench,
  type Contender,
} from '../contenders.ts'
import type { Done } from '../load.ts'

const CONCURRENCY = 32
/** Connects at once for the CPU time, and one after the other for the latency, of each round. */
const COUNTS = { atOnce: 400, alone: 150 }
const COUNTS_QUICK = { atOnce: 60, alone: 20 }
/** Rounds nobody counts, until the code of a connect is compiled. */
const WARM_UP_ROUNDS = 3
const US_PER_MS = 1000

type Kind = {
  readonly name: string
  readonly credentials: CredentialKind
  readonly isAdmitted: boolean
  /** Each token once, or the same few again and again. */
  readonly isNew: boolean
}

const KINDS: readonly Kind[] = [
  {
    name: 'admitted, new token',
    credentials: 'distinct',
    isAdmitted: true,
    isNew: true,
  },
  { name: 'admitted, token seen before', credentials: 'repeated', isAdmitted: true, isNew: false },
  {
    name: 'refused, bad signature, new token',
    credentials: 'bad signature',
    isAdmitted: false,
    isNew: true,
  },
  {
    name: 'refused, bad signature, token seen before',
    credentials: 'bad signature',
    isAdmitted: false,
    isNew: false,
  },
  {
    name: 'refused, other ServiceAccount, new token',
    credentials: 'other account',
    isAdmitted: false,
    isNew: true,
  },
  {
    name: 'refused, other ServiceAccount, token seen before',
    credentials: 'other account',
    isAdmitted: false,
    isNew: false,
  },
]

export const CONNECT_CPU = 'connect, CPU'
export const CONNECT_P50 = 'connect, median'
export const CONNECT_P99 = 'connect, 99th percentile'
/** What stands in place of a figure for a refusal where a proxy does not refuse. */
const LETS_IN = 'lets in'

type Measured = { readonly cpuMs: number; readonly p50Ms: number; readonly p99Ms: number }

export const measureConnects = async (bench: Bench): Promise<void> => {
  await withContenders(bench, { section: 'peers', isTls: false }, async (contenders) => {
    for (const kind of KINDS.filter(({ name }) => isWanted(bench, name))) {
      await measureKind(bench, contenders, kind)
    }
  })
}

const measureKind = async (
  bench: Bench,
  contenders: readonly Contender[],
  { name, credentials, isAdmitted, isNew }: Kind,
): Promise<void> => {
  const { load, cluster, options } = bench
  const { atOnce, alone } = options.isQuick ? COUNTS_QUICK : COUNTS
  const each = atOnce + alone
  const tokens = isNew ? each * (options.rounds + WARM_UP_ROUNDS) : 0
  const file = await cluster.credentials(credentials, tokens)
  const lettingIn = new Set<string>()

  const connect = async (
    contender: Contender,
    how: { readonly from: number; readonly count: number; readonly concurrency: number },
  ): Promise<Done> => {
    const done = await load.run({ do: 'handshakes', ...how, ...contender.target(file) })
    const answers = Object.keys(done.statuses ?? {})
    if (answers.every((status) => isRefusal(status) !== isAdmitted)) return done
    if (isAdmitted || answers.some((status) => status !== '101')) {
      throw new Error(`answers: ${JSON.stringify(done.statuses)}`)
    }
    lettingIn.add(contender.name)
    return done
  }

  const measure = async (contender: Contender, round: number): Promise<Measured> => {
    const from = round * each
    const ms = await cpuMsOf(contender, () =>
      connect(contender, { from, count: atOnce, concurrency: CONCURRENCY }),
    )
    const one = await connect(contender, { from: from + atOnce, count: alone, concurrency: 1 })
    return { cpuMs: ms / atOnce, p50Ms: one.p50Us / US_PER_MS, p99Ms: one.p99Us / US_PER_MS }
  }

  const rounds = await measureRounds(
    bench,
    contenders,
    { table: CONNECT_CPU, name },
    {
      prepare: async (contender) => {
        for (let round = 0; round < WARM_UP_ROUNDS; round += 1) await measure(contender, round)
      },
      measure: (contender, round) => measure(contender, WARM_UP_ROUNDS + round),
    },
  )
  const keep = (table: string, unit: string, pick: (measured: Measured) => number): void => {
    for (const [peer, values] of rounds) {
      if (lettingIn.has(peer)) bench.facts.push({ table, case: name, peer, seen: LETS_IN })
      else {
        const figures = values.map(pick)
        bench.results.push({ section: 'peers', table, case: name, unit, peer, rounds: figures })
      }
    }
  }
  keep(CONNECT_CPU, 'CPU ms per connect, answer and close, 32 at once', ({ cpuMs }) => cpuMs)
  keep(CONNECT_P50, 'ms from connect to answer, one at a time', ({ p50Ms }) => p50Ms)
  keep(CONNECT_P99, 'ms from connect to answer, one at a time', ({ p99Ms }) => p99Ms)
}

/** An answer that says no; one that says nobody could tell is a failure of the measurement. */
const isRefusal = (status: string): boolean => status === '401' || status === '403'
