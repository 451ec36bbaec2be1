/** Round trips: how much longer one message takes through the proxy than straight to the echo server. */

import {
  measureRounds,
  startPeer,
  withContenders,
  type Bench,
  type Contender,
} from '../contenders.ts'
import type { Done } from '../load.ts'
import { direct } from '../peers/direct.ts'

const MESSAGE_BYTES = 128

export const measureRoundTrips = async (bench: Bench): Promise<void> => {
  const { load, options, cluster } = bench
  const credentials = await cluster.credentials('repeated')
  const table = 'round trip of 128 B, one connection'
  const straight = await startPeer(bench, direct, false)
  const echo = ({ name: group }: Contender): Promise<Done> =>
    load.run({ do: 'echo', group, payloadBytes: MESSAGE_BYTES, ms: options.windowMs })
  await withContenders(bench, { section: 'round-trip', isTls: false }, async (contenders) => {
    const rounds = await measureRounds(
      bench,
      [straight, ...contenders],
      { table, name: 'p50 and p99' },
      {
        prepare: async (contender) => {
          const { name: group, target } = contender
          await load.run({ do: 'open', group, connections: 1, ...target(credentials) })
          await echo(contender)
          await echo(contender)
        },
        measure: echo,
        finish: async ({ name: group }) => void (await load.run({ do: 'close', group })),
      },
    )
    const base = rounds.get(straight.name) ?? []
    const keep = (name: string, pick: (done: Done) => number): void => {
      for (const [peer, values] of rounds) {
        const own = values.map(pick)
        const added = own.map((value, round) => value - pick(base[round] ?? NOTHING))
        bench.results.push({
          section: 'round-trip',
          table,
          case: peer === straight.name ? `${name} without a proxy` : `${name} added`,
          unit: 'µs',
          peer,
          rounds: peer === straight.name ? own : added,
        })
      }
    }
    keep('p50', ({ p50Us }) => p50Us)
    keep('p99', ({ p99Us }) => p99Us)
  })
}

const NOTHING: Done = {
  messages: 0,
  bytes: 0,
  seconds: 0,
  p50Us: Number.NaN,
  p99Us: Number.NaN,
}
