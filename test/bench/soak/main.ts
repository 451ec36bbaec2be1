/** `npm run soak`: many minutes of streams, reloads, pods that come and go, and outages, with every byte and line counted. */

import { readFile, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { today } from '../../kit/result-page.ts'
import { report } from '../process-rig.ts'
import { totalOf } from './counts.ts'
import { Crowd, type SoakPod } from './crowd.ts'
import { judgeSoak } from './judge.ts'
import { startMachine } from './machine.ts'
import { OUTAGES } from './outages.ts'
import { rewritePage } from './page.ts'
import type { Sample } from './slope.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    streams: { type: 'string', default: '500' },
    seed: { type: 'string' },
    page: { type: 'boolean', default: false },
  },
})
const MINUTES = Number(values.minutes)
const STREAMS = Number(values.streams)
const SEED = Number(values.seed ?? (Date.now() % 1_000_000) * 1000)
const PAGE = new URL('../../../docs/reliability.md', import.meta.url)

/** Of the streams, those that end with their pod. */
const REVOKED_SHARE = 0.2
const STREAMS_PER_LASTING_POD = 16
const STREAMS_PER_MAYFLY = 4
const EVERY_MS = 1000
const OUTAGE_EVERY_MS = 45_000
const OUTAGE_MS = 8000
const REPORT_MS = 30_000
/** Of the run, before what is measured has settled. */
const WARM_UP_SHARE = 0.2
/** The longest streams last two minutes, and a busy machine is slow. With a lost byte one would never end. */
const LAST_STREAMS_MS = 240_000
/** Gathered lines are written after a second. */
const LINES_MS = 2000
const LOG_LINES = 40
const MIB = 1024 * 1024

const say = (line: string): void => void process.stdout.write(`${line}\n`)

const machine = await startMachine()
const descriptorsAtRest = machine.descriptors()
const crowd = new Crowd({ port: machine.port, seed: SEED, atGateway: machine.atGateway })
const { counts } = crowd
const until = performance.now() + MINUTES * 60_000
const isOver = () => performance.now() >= until || crowd.isBroken
let isEndExpected = false
const watchOver = async (): Promise<void> => {
  const { code, signal } = await machine.sidecar.exited
  if (!isEndExpected) counts.problems.push(`the sidecar ended by itself: ${signal ?? code}`)
}
void watchOver()

/** Waits, unless the run is over before. */
const pause = (ms: number) => sleep(Math.min(ms, Math.max(0, until - performance.now())))

const samples = { rss: [] as Sample[], descriptors: [] as Sample[] }
const sample = async (): Promise<void> => {
  const began = performance.now()
  while (!isOver()) {
    const atMs = performance.now() - began
    samples.rss.push({ atMs, value: machine.rssMib() })
    samples.descriptors.push({ atMs, value: machine.descriptors() - 2 * crowd.open })
    await pause(EVERY_MS)
  }
}

let reloads = 0
const reload = async (): Promise<void> => {
  while (!isOver()) {
    await pause(EVERY_MS)
    reloads += 1
    await machine.reload(reloads)
  }
}

let outages = 0
const breakApi = async (): Promise<void> => {
  await pause(OUTAGE_EVERY_MS)
  while (!isOver()) {
    const outage = OUTAGES[outages % OUTAGES.length] ?? OUTAGES[0]
    outages += 1
    await machine.begin(outage)
    await sleep(OUTAGE_MS)
    await machine.end(outage)
    await pause(OUTAGE_EVERY_MS - OUTAGE_MS)
  }
}

let pods = 0
const createPod = (): Promise<SoakPod> => {
  pods += 1
  return machine.createPod(
    `worker-${pods}`,
    `127.${1 + (pods >> 16)}.${(pods >> 8) & 255}.${pods & 255}`,
  )
}

/** The oldest pod goes and another comes, every second. */
const churn = async (count: number): Promise<void> => {
  const living: { readonly pod: SoakPod; isGone: boolean }[] = []
  const staying: Promise<unknown>[] = []
  const come = async () => {
    const life = { pod: await createPod(), isGone: false }
    living.push(life)
    for (let n = 0; n < STREAMS_PER_MAYFLY; n += 1) {
      staying.push(crowd.stay(life.pod, () => life.isGone))
    }
  }
  const go = async () => {
    const life = living.shift()
    if (life === undefined) return
    await machine.deletePod(life.pod.name)
    life.isGone = true
  }
  for (let n = 0; n < count; n += 1) await come()
  while (!isOver()) {
    await pause(EVERY_MS)
    await go()
    await come()
  }
  while (living.length > 0) await go()
  await Promise.all(staying)
}

const last = async (count: number): Promise<void> => {
  const each = Array.from({ length: Math.ceil(count / STREAMS_PER_LASTING_POD) }, createPod)
  const lasting = await Promise.all(each)
  const [first] = lasting
  const streams = Array.from({ length: count }, (_, n) => lasting[n % lasting.length])
  await Promise.all([
    ...streams.map((pod) => pod && crowd.comeAgain(pod, isOver)),
    first && crowd.tryForged(first, isOver),
  ])
}

const describe = (): string =>
  `${crowd.open} open, ${counts.admitted} admitted, ${totalOf(counts.refused)} refused, ` +
  `${((counts.bytesUp + counts.bytesDown) / MIB).toFixed(0)} MiB, ` +
  `RSS ${machine.rssMib().toFixed(1)} MiB, ${machine.descriptors()} descriptors`
const telling = setInterval(() => say(describe()), REPORT_MS)

say(`${STREAMS} streams for ${MINUTES} minutes through ${machine.about}, seed ${SEED}`)
const revoked = Math.round(STREAMS * REVOKED_SHARE)
const late = sleep(MINUTES * 60_000 + LAST_STREAMS_MS, 'late', { ref: false })
const ended = await Promise.race([
  Promise.all([
    last(STREAMS - revoked),
    churn(Math.ceil(revoked / STREAMS_PER_MAYFLY)),
    reload(),
    breakApi(),
    sample(),
  ]),
  late,
]).catch((error: unknown) => void counts.problems.push(String(error)))
clearInterval(telling)
if (ended === 'late') counts.problems.push(`${crowd.open} streams never came to their end`)
await sleep(LINES_MS)
const metrics = await machine.metrics()
const descriptorsLeft = machine.descriptors() - descriptorsAtRest
isEndExpected = true
machine.sidecar.signal('SIGTERM')
const exit = await machine.sidecar.exited
const settledAt = MINUTES * 60_000 * WARM_UP_SHARE
const run = {
  minutes: MINUTES,
  streams: STREAMS,
  date: today(),
  counts,
  metrics,
  audit: machine.audit(),
  log: machine.sidecar.stderr.all,
  exit: exit.signal ?? String(exit.code),
  descriptorsLeft,
  pods,
  reloads,
  outages,
  rss: samples.rss.filter(({ atMs }) => atMs >= settledAt),
  descriptors: samples.descriptors.filter(({ atMs }) => atMs >= settledAt),
}
const findings = judgeSoak(run)
const isOk = report(findings)
for (const problem of counts.problems.slice(0, 20)) say(problem)
if (!isOk) say(machine.sidecar.stderr.all.slice(-LOG_LINES).join('\n'))
if (values.page) await writeFile(PAGE, rewritePage(await readFile(PAGE, 'utf8'), run, findings))
await machine.stop()
process.exit(isOk ? 0 : 1)
