/** Streams whose ends misbehave in every way a network allows lose and change no byte. */

import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import { startRig } from '../kit/rig.ts'
import { startSoakGateway, type Plan } from '../kit/soak.ts'

const ENDINGS: readonly Plan['ending'][] = ['close', 'close', 'worker vanishes', 'gateway vanishes']
const WORKERS = 12
const STREAMS_EACH = 4
const FRAMES = 60

test('pauses, stalls, writes cut anywhere and vanished ends lose and change no byte', async (t) => {
  // A pause is a few turns of the event loop: enough for other sockets to overtake.
  const pause = async (ms: number): Promise<void> => {
    for (let turns = 0; turns < ms / 20; turns += 1) await turn()
  }
  const gateway = await startSoakGateway({ pause, frameBytesMax: 300_000 })
  const rig = await startRig({
    set: [`gateway.url=${gateway.url}`, 'limits.streamsPerPod=64', 'limits.idlePing=1h'],
  })
  t.teardown(async () => {
    gateway.close()
    await rig.stop()
  })
  const pod = rig.createPod()
  const worker = { port: rig.port, localAddress: '127.0.0.11', token: rig.mint({ pod }) }
  const outcomes = await Promise.all(
    Array.from({ length: WORKERS }, async (_, nth) => {
      const own = []
      for (let stream = 0; stream < STREAMS_EACH; stream += 1) {
        const seed = 1 + nth * STREAMS_EACH + stream
        const ending = ENDINGS[(nth + stream) % ENDINGS.length] ?? 'close'
        own.push(await gateway.run(worker, { seed, frames: FRAMES, ending }))
      }
      return own
    }),
  )
  const all = outcomes.flat()
  t.same(
    all.flatMap(({ problems }) => problems),
    [],
  )
  t.ok(all.reduce((sum, { bytesUp, bytesDown }) => sum + bytesUp + bytesDown, 0) > 50 * 2 ** 20)
})
