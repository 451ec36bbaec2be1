/** `npm run bench:storm`: ten thousand workers that reconnect at once, and garbage next to live streams. */

// `--help` names its options.

import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'
import { ship } from '../peers/shipped.ts'
import { report, type Finding } from '../process-rig.ts'
import { GARBAGE } from './garbage.ts'
import type { Through } from './load.ts'
import { echoesOf, measure, stormOf, type Storm } from './measure.ts'
import { garbageTable, judgeProcess, judgeStorm, stormTable } from './report.ts'
import { startStormRig, type StormRig } from './rig.ts'

const HELP = `npm run bench:storm -- [options]
  --only reconnect|garbage   one of the two storms
  --workers N                workers that come back (default 10000)
  --protocol P               stream or openclaw (default stream)
  --phases A,B               of cold, warm, expired (default all three)
  --rate N                   TokenReviews a second, each answered after 5 ms (default 500)
  --get-rate N               GETs of single pods a second (default 2000)
  --streams N                live streams beside the garbage (default 1000)
  --handshakes N             handshakes of garbage (default 100000)
  --env NAME=VALUE           over the environment of the sidecar's image, repeatable
  --set path=value           configuration of the sidecar, repeatable
  --json FILE                where the figures go
`

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    workers: { type: 'string', default: '10000' },
    protocol: { type: 'string', default: 'stream' },
    phases: { type: 'string', default: 'cold,warm,expired' },
    rate: { type: 'string', default: '500' },
    'get-rate': { type: 'string', default: '2000' },
    streams: { type: 'string', default: '1000' },
    handshakes: { type: 'string', default: '100000' },
    env: { type: 'string', multiple: true, default: [] },
    set: { type: 'string', multiple: true, default: [] },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

const SERVICE_MS = 5
/** Longer than anything waits for: this API server never says 429. */
const WAIT_MS_MAX = 10_000
const STORM_MS_MAX = 90_000
/** A verdict is kept for 60 s by default. */
const CACHE_TTL_MS = 60_000
const GATEWAY_DOWN_MS = 500
const QUIET_MS = 10_000
const GARBAGE_AT_ONCE = 64
/** Enough addresses that the limit on failures per address does not save the sidecar the work. */
const GARBAGE_ADDRESSES = 4000

const nameAndValue = (pair: string): readonly [string, string] => {
  const at = pair.indexOf('=')
  if (at < 1) throw new Error(`--env ${pair}: give it as NAME=VALUE`)
  return [pair.slice(0, at), pair.slice(at + 1)]
}

/** How Node bounds the heap in the chart's container of 512 MiB; without a bound, garbage stays uncollected. */
const HEAP_MIB = 256
const CHECKOUT = fileURLToPath(new URL('../../..', import.meta.url))
const { main, env } = ship(CHECKOUT)
const shipped = {
  main,
  env: {
    ...env,
    NODE_OPTIONS: `${env['NODE_OPTIONS'] ?? ''} --max-old-space-size=${HEAP_MIB}`,
    ...Object.fromEntries(flags.env.map(nameAndValue)),
  },
}

const say = (text: string): void => void process.stdout.write(text)

const start = (workers: number, protocol: 'stream' | 'openclaw'): Promise<StormRig> => {
  const pace = (rate: string) => ({
    ratePerSecond: Number(rate),
    serviceMs: SERVICE_MS,
    waitMsMax: WAIT_MS_MAX,
  })
  return startStormRig({
    workers,
    reviews: pace(flags.rate),
    podGets: pace(flags['get-rate']),
    protocol,
    shipped,
    set: flags.set,
  })
}

const finish = async (rig: StormRig): Promise<Through> => {
  const answer = await rig.tell({ kind: 'finish', timeoutMs: STORM_MS_MAX })
  if (answer.kind !== 'finished') throw new Error(`the load answered ${answer.kind}`)
  return answer
}

/** A sidecar that knows no verdict, as after a restart of the whole pod. */
const arrive = async (rig: StormRig): Promise<Through> => {
  await rig.tell({ kind: 'begin', afterMs: 0 })
  return finish(rig)
}

/** The gateway goes and comes back; every worker has to do the same. */
const restart = async (rig: StormRig): Promise<Through> => {
  await rig.tell({ kind: 'begin', afterMs: 1000 })
  rig.restartGateway(GATEWAY_DOWN_MS)
  return finish(rig)
}

const PHASES = {
  cold: { run: arrive, isKnown: false },
  warm: { run: restart, isKnown: true },
  expired: { run: restart, isKnown: false },
} as const

const reconnect = async (findings: Finding[]): Promise<readonly Storm[]> => {
  const workers = Number(flags.workers)
  const rig = await start(workers, flags.protocol === 'openclaw' ? 'openclaw' : 'stream')
  if (rig.hold < workers) {
    const left = workers - rig.hold
    say(
      `The limit on open files (ulimit -n) lets ${rig.hold} streams stay; ${left} leave at once.\n`,
    )
  }
  const storms: Storm[] = []
  for (const name of flags.phases.split(',')) {
    if (!Object.hasOwn(PHASES, name)) throw new Error(`there is no phase ${name}`)
    const { run, isKnown } = PHASES[name as keyof typeof PHASES]
    if (name === 'expired') await sleep(CACHE_TTL_MS)
    const storm = stormOf(await measure(rig, name, () => run(rig)))
    storms.push(storm)
    findings.push(...judgeStorm(storm, isKnown ? 0 : workers))
    say(`${name}: ${JSON.stringify({ turnedAway: storm.turnedAway, lost: storm.lost })}\n`)
  }
  await rig.stop()
  say(`\n${stormTable(storms)}\n`)
  return storms
}

const garbage = async (findings: Finding[]) => {
  const handshakes = Number(flags.handshakes)
  // Only a stream of bytes can echo.
  const rig = await start(Number(flags.streams), 'stream')
  await arrive(rig)
  const before = await measure(rig, 'before', async () => {
    await rig.tell({ kind: 'echo' })
    await sleep(QUIET_MS)
    return echoesOf(await rig.tell({ kind: 'settle' }))
  })
  let answers = {}
  let rate = Number.NaN
  const during = await measure(rig, 'beside garbage', async () => {
    await rig.tell({ kind: 'echo' })
    const done = await rig.throwGarbage({
      handshakes,
      atOnce: GARBAGE_AT_ONCE,
      addresses: GARBAGE_ADDRESSES,
    })
    answers = done.answers
    rate = handshakes / (done.tookMs / 1000)
    return echoesOf(await rig.tell({ kind: 'settle' }))
  })
  await rig.stop()
  say(`\n${garbageTable([before, { ...during, rate }])}\n`)
  const refused = Object.values(during.refusals).reduce((sum, count) => sum + count, 0)
  findings.push(
    ['garbage: all of it refused', JSON.stringify(answers), refused === handshakes],
    ['garbage: no TokenReview', `${during.tokenReviews}`, during.tokenReviews === 0],
    [
      'garbage: no live stream lost a message',
      `${during.result.unanswered} of ${during.result.messages}`,
      during.result.unanswered === 0,
    ],
    ...judgeProcess(during),
  )
  return { handshakes, classes: GARBAGE, rate, answers, before, during }
}

if (flags.help) say(HELP)
else {
  const findings: Finding[] = []
  const figures = {
    protocol: flags.protocol,
    env: shipped.env,
    set: flags.set,
    node: process.version,
    ...(flags.only === 'garbage' ? {} : { reconnect: await reconnect(findings) }),
    ...(flags.only === 'reconnect' ? {} : { garbage: await garbage(findings) }),
  }
  const holds = report(findings)
  if (flags.json !== undefined) {
    writeFileSync(flags.json, `${JSON.stringify({ ...figures, holds }, undefined, 2)}\n`)
  }
  process.exitCode = holds ? 0 : 1
}
