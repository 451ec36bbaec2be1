/** Echoes: CPU time of the proxy for a message there and back, by size and number of connections. */

import {
  cpuMsOf,
  isWanted,
  measureCase,
  withContenders,
  type Bench,
  type Contender,
} from '../contenders.ts'
import { sizeName } from '../report/figures.ts'

const SIZES = [128, 1024, 16 * 1024, 256 * 1024]
const CONNECTIONS = [1, 64, 1000]
/** Over TLS the cipher is the same for all and dwarfs the rest, so one number of connections will do. */
const CONNECTIONS_TLS = [64]
const SIZES_TLS_QUICK = [1024]
/** The first messages of a process cost more: code is compiled, buffers are pooled. */
const FIRST_WARM_UP_WINDOWS = 4

export const measureEchoes = async (bench: Bench): Promise<void> => {
  for (const isTls of [false, true]) {
    const sizes = isTls && bench.options.isQuick ? SIZES_TLS_QUICK : SIZES
    await withContenders(bench, { section: 'echo', isTls }, async (contenders) => {
      for (const connections of isTls ? CONNECTIONS_TLS : CONNECTIONS) {
        await measureOver(bench, contenders, { isTls, connections, sizes })
      }
    })
  }
}

/** Plain echoes of these sizes, in bytes, over that many connections. */
export const measurePlainEchoes = async (
  bench: Bench,
  work: { readonly connections: number; readonly sizes: readonly number[] },
): Promise<void> => {
  await withContenders(bench, { section: 'echo', isTls: false }, (contenders) =>
    measureOver(bench, contenders, { ...work, isTls: false }),
  )
}

type Work = {
  readonly isTls: boolean
  readonly connections: number
  readonly sizes: readonly number[]
}

const measureOver = async (
  bench: Bench,
  contenders: readonly Contender[],
  { isTls, connections, sizes }: Work,
): Promise<void> => {
  const { load, options, cluster } = bench
  const table = `echo, ${isTls ? 'TLS' : 'plain'}`
  const cases = sizes
    .map((payloadBytes) => ({
      payloadBytes,
      name: `${sizeName(payloadBytes)} x ${connections.toLocaleString('en')}`,
    }))
    .filter(({ name }) => isWanted(bench, name))
  const credentials = await cluster.credentials('repeated')
  const echo = (group: string, payloadBytes: number, windows = 1) =>
    load.run({ do: 'echo', group, payloadBytes, ms: windows * options.windowMs })

  for (const [index, { name, payloadBytes }] of cases.entries()) {
    await measureCase(
      bench,
      contenders,
      { section: 'echo', table, name, unit: 'CPU µs per echo' },
      {
        prepare: async ({ name: group, target }) => {
          if (index === 0) {
            await load.run({ do: 'open', group, connections, ...target(credentials) })
          }
          await echo(group, payloadBytes, index === 0 ? FIRST_WARM_UP_WINDOWS : 1)
        },
        measure: async (contender) => {
          let messages = 0
          const ms = await cpuMsOf(contender, async () => {
            messages = (await echo(contender.name, payloadBytes)).messages
          })
          return (ms * 1000) / messages
        },
      },
    )
  }
  for (const { name: group } of contenders) await load.run({ do: 'close', group })
}
