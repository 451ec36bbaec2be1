/** `npm run soak` (`--minutes N`, `--seconds N`, `--connections N`, `--seed N`): misbehaving streams, every byte checked. */

import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { SeededRandom, startSoakGateway, type Outcome, type Plan } from '../kit/soak.ts'
import { startProcessRig } from './process-rig.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seconds: { type: 'string' },
    connections: { type: 'string', default: '200' },
    seed: { type: 'string' },
  },
})
const SECONDS = Number(values.seconds ?? Number(values.minutes) * 60)
const CONNECTIONS = Number(values.connections)
const SEED = Number(values.seed ?? (Date.now() % 1_000_000) * 1000)
/** The fewest and the most frames that a stream carries each way. */
const FRAMES = [20, 400] as const
const FRAME_BYTES_MAX = 400_000
const VANISHING_SHARE = 0.2
/** What is still under way at the end can take this long; with a lost byte it would never end. */
const LAST_STREAMS_MS = 120_000
/** If all started at once they would only wait for each other. */
const START_MS = 3000
const REPORT_MS = 30_000
const MIB = 1024 * 1024

const pause = (ms: number): Promise<void> => sleep(ms)
const gateway = await startSoakGateway({ pause, frameBytesMax: FRAME_BYTES_MAX })
const rig = await startProcessRig({
  set: [
    `gateway.url=${gateway.url}`,
    'limits.streamsPerPod=1024',
    'limits.pendingPerAddress=2000',
    // A ping in between would be one more frame than was sent.
    'limits.idlePing=1h',
    // Both ends share one busy process: the test judges the bytes, not the speed.
    'gateway.connectTimeout=30s',
    'limits.handshakeTimeout=1m',
  ],
})

const random = new SeededRandom(SEED)
const until = performance.now() + SECONDS * 1000
const total = { streams: 0, vanished: 0, bytesUp: 0, bytesDown: 0 }
const problems: string[] = []
const isOver = () => performance.now() >= until || problems.length > 0
void rig.sidecar.exited.then(({ code, signal }) =>
  problems.push(`the sidecar ended: ${signal ?? code}`),
)

const plan = (seed: number): Plan => {
  const frames = FRAMES[0] + random.below(FRAMES[1] - FRAMES[0])
  if (random.next() >= VANISHING_SHARE) return { seed, frames, ending: 'close' }
  return { seed, frames, ending: random.next() < 0.5 ? 'worker vanishes' : 'gateway vanishes' }
}

const count = ({ bytesUp, bytesDown, problems: found }: Outcome, { ending }: Plan): void => {
  total.streams += 1
  if (ending !== 'close') total.vanished += 1
  total.bytesUp += bytesUp
  total.bytesDown += bytesDown
  problems.push(...found)
}

let seeds = SEED
let running = 0
const connection = async (): Promise<void> => {
  running += 1
  await pause(START_MS * Math.random())
  const worker = { port: rig.port, localAddress: rig.podAddress, token: rig.token }
  while (!isOver()) {
    seeds += 1
    const next = plan(seeds)
    count(await gateway.run(worker, next), next)
  }
  running -= 1
}

const describe = (): string =>
  `${total.streams} streams, ${total.vanished} of them cut in a frame, ` +
  `${(total.bytesUp / MIB).toFixed(0)} MiB up, ${(total.bytesDown / MIB).toFixed(0)} MiB down`
const report = setInterval(() => {
  void rig.rssMib().then(
    (rss) => process.stdout.write(`${describe()}, sidecar ${rss.toFixed(0)} MiB\n`),
    () => {},
  )
}, REPORT_MS)

process.stdout.write(`${CONNECTIONS} connections for ${SECONDS} s, seed ${SEED}\n`)
const overdue = Symbol('overdue')
const late = AbortSignal.timeout(SECONDS * 1000 + LAST_STREAMS_MS)
const ended = await Promise.race([
  Promise.all(Array.from({ length: CONNECTIONS }, connection)),
  new Promise<typeof overdue>((resolve) => {
    late.addEventListener('abort', () => resolve(overdue))
  }),
]).catch((error: unknown) => {
  problems.push(error instanceof Error ? error.message : String(error))
})
if (ended === overdue) problems.push(`${running} connections never came to their end`)
clearInterval(report)
const uncaught = await rig.metrics().then(
  (metrics) => metrics.get('uncaught_peer_errors_total'),
  () => undefined,
)
if (uncaught !== 0) problems.push(`errors of sockets that nobody listened for: ${uncaught}`)

for (const problem of problems.slice(0, 20)) process.stdout.write(`${problem}\n`)
if (problems.length > 0) process.stdout.write(rig.sidecar.stderr.text)
const isOk = problems.length === 0
const verdict = isOk ? 'ok: no byte was lost or changed' : `BROKEN: ${problems.length} problems`
process.stdout.write(`${verdict} (${describe()}, seed ${SEED})\n`)
gateway.close()
await rig.stop()
process.exit(isOk ? 0 : 1)
