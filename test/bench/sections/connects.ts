/** Connects by what a proxy has to find out: its CPU time for many at once, and how long one alone takes. */

import type { CredentialKind } from '../api-server.ts'
import {
  cpuMsOf,
  isWanted,
  measureCase,
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
/** Connects nobody counts, until the code of a connect is compiled as well as it will be. */
const WARM_UP = 6000
const WARM_UP_QUICK = 600
/** And rounds nobody counts of each kind, for the code that only this kind runs. */
const WARM_UP_ROUNDS = 2
/** Enough to use up a burst that a limit lets through, and then few: each may wait. */
const SHIPPED_BURST = 20
const SHIPPED_COUNT = 5
const LATENCY = 'ms from connect to answer, one at a time'
const REFUSALS = ['401', '403']
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
  const { load, cluster, options } = bench
  const credentials = await cluster.credentials('repeated')
  await withContenders(bench, { section: 'peers', isTls: false }, async (contenders) => {
    for (const { target } of contenders) {
      await load.run({
        do: 'handshakes',
        from: 0,
        count: options.isQuick ? WARM_UP_QUICK : WARM_UP,
        concurrency: CONCURRENCY,
        ...target(credentials),
      })
    }
    for (const kind of KINDS.filter(({ name }) => isWanted(bench, name))) {
      await measureKind(bench, contenders, kind)
    }
  })
  await measureAsShipped(bench)
}

/** The latency of new tokens, one at a time, where default limits make a difference. */
const measureAsShipped = async (bench: Bench): Promise<void> => {
  const { cluster, load, options } = bench
  const name = 'admitted, new token, limits as shipped'
  const peers = bench.peers.flatMap((peer) =>
    peer.asShipped === undefined ? [] : [{ ...peer, ...peer.asShipped }],
  )
  if (peers.length === 0 || !isWanted(bench, name)) return
  const tokens = SHIPPED_BURST + SHIPPED_COUNT * options.rounds
  const file = await cluster.credentials('distinct', tokens)
  const shipped = { ...bench, peers }
  await withContenders(shipped, { section: 'peers', isTls: false }, async (contenders) => {
    const connect = async ({ target }: Contender, from: number, count: number): Promise<number> =>
      (await load.run({ do: 'handshakes', from, count, concurrency: 1, ...target(file) })).p50Us
    await measureCase(
      shipped,
      contenders,
      { section: 'peers', table: CONNECT_P50, name, unit: LATENCY },
      {
        prepare: async (contender) => void (await connect(contender, 0, SHIPPED_BURST)),
        measure: async (contender, round) => {
          const from = SHIPPED_BURST + round * SHIPPED_COUNT
          return (await connect(contender, from, SHIPPED_COUNT)) / US_PER_MS
        },
      },
    )
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
    if (!judgeAnswers(done.statuses ?? {}, isAdmitted)) lettingIn.add(contender.name)
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
  keep(CONNECT_P50, LATENCY, ({ p50Ms }) => p50Ms)
  keep(CONNECT_P99, LATENCY, ({ p99Ms }) => p99Ms)
}

/**
 * Whether each answer is what it should be; false where refusals were due and all were let in. Anything
 * else, such as an answer that nobody could tell, is an error: it would be counted as what it is not.
 */
export const judgeAnswers = (
  statuses: Readonly<Record<string, number>>,
  isAdmitted: boolean,
): boolean => {
  const answers = Object.keys(statuses)
  const isLetIn = answers.length > 0 && answers.every((status) => status === '101')
  const isRefused = answers.length > 0 && answers.every((status) => REFUSALS.includes(status))
  if (isAdmitted ? isLetIn : isRefused) return true
  if (!isAdmitted && isLetIn) return false
  throw new Error(`answers: ${JSON.stringify(statuses)}`)
}
