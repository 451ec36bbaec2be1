/** Echoes: CPU time of the proxy for a message there and back, by size and number of connections. */

import { cpuMsOf, isWanted, measureCase, withContenders, type Bench } from '../contenders.ts'
import { sizeName } from '../names.ts'

const SIZES = [128, 1024, 16 * 1024, 256 * 1024]
const CONNECTIONS = [1, 64, 1000]
/** Over TLS the cipher is the same for all and dwarfs the rest, so one number of connections will do. */
const CONNECTIONS_TLS = [64]
/** The first messages of a process cost more: code is compiled, buffers are pooled. */
const FIRST_WARM_UP_WINDOWS = 4

export const measureEchoes = async (bench: Bench): Promise<void> => {
  for (const isTls of [false, true]) await measureOver(bench, isTls)
}

const measureOver = async (bench: Bench, isTls: boolean): Promise<void> => {
  const { load, options, cluster } = bench
  const { windowMs } = options
  const credentials = await cluster.credentials('repeated')
  const table = `echo, ${isTls ? 'TLS' : 'plain'}`
  const warm = new Set<string>()
  await withContenders(bench, { section: 'echo', isTls }, async (contenders) => {
    for (const payloadBytes of SIZES) {
      for (const connections of isTls ? CONNECTIONS_TLS : CONNECTIONS) {
        const name = `${sizeName(payloadBytes)} x ${connections.toLocaleString('en')}`
        if (!isWanted(bench, name)) continue
        await measureCase(
          bench,
          contenders,
          { section: 'echo', table, name, unit: 'CPU µs per echo' },
          {
            prepare: async ({ name: group, target }) => {
              await load.run({ do: 'open', group, connections, ...target(credentials) })
              const ms = warm.has(group) ? windowMs : windowMs * FIRST_WARM_UP_WINDOWS
              warm.add(group)
              await load.run({ do: 'echo', group, payloadBytes, ms })
            },
            measure: async (contender) => {
              let messages = 0
              const ms = await cpuMsOf(contender, async () => {
                const group = contender.name
                messages = (await load.run({ do: 'echo', group, payloadBytes, ms: windowMs }))
                  .messages
              })
              return (ms * 1000) / messages
            },
            finish: async ({ name: group }) => void (await load.run({ do: 'close', group })),
          },
        )
      }
    }
  })
}
