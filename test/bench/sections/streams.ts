/** One-way streams of 64 KiB messages: CPU time of the proxy for a gigabyte in either direction. */

import { cpuMsOf, isWanted, measureCase, withContenders, type Bench } from '../contenders.ts'

const MESSAGE_BYTES = 64 * 1024
const CONNECTIONS = 8
const GB = 1e9

export const measureStreams = async (bench: Bench): Promise<void> => {
  await measurePlainStreams(bench)
  // A short run leaves TLS to the echoes and the handshakes.
  if (!bench.options.isQuick) await measureOver(bench, true)
}

export const measurePlainStreams = async (bench: Bench): Promise<void> => measureOver(bench, false)

const measureOver = async (bench: Bench, isTls: boolean): Promise<void> => {
  const { load, options, cluster } = bench
  const { windowMs } = options
  const credentials = await cluster.credentials('repeated')
  const table = `streams of 64 KiB messages, ${isTls ? 'TLS' : 'plain'}`
  await withContenders(bench, { section: 'streams', isTls }, async (contenders) => {
    for (const direction of ['down', 'up'] as const) {
      const run = (group: string, ms: number) =>
        load.run({ do: 'stream', group, direction, payloadBytes: MESSAGE_BYTES, ms })
      if (!isWanted(bench, direction)) continue
      await measureCase(
        bench,
        contenders,
        { section: 'streams', table, name: direction, unit: 'CPU s per GB' },
        {
          prepare: async ({ name: group, target }) => {
            await load.run({ do: 'open', group, connections: CONNECTIONS, ...target(credentials) })
            await run(group, 2 * windowMs)
          },
          measure: async (contender) => {
            let bytes = 0
            const ms = await cpuMsOf(contender, async () => {
              bytes = (await run(contender.name, windowMs)).bytes
            })
            return ms / 1000 / (bytes / GB)
          },
          finish: async ({ name: group }) => void (await load.run({ do: 'close', group })),
        },
      )
    }
  })
}
