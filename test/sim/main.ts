/** `npm run test:sim -- --seeds N [--seed S]`: plays one day a seed, and shrinks the first one that breaks a promise. */

import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { table, type Section } from '../kit/result-page.ts'
import { headOf, writeSection } from './page.ts'
import { NO_SHRINK, type Played } from './played.ts'

const USAGE = `npm run test:sim -- [--seeds N] [--seed S] [--minutes M] [--jobs J]

  --seeds    how many days to play. Default 200
  --seed     the first seed. Default: drawn, and printed
  --minutes  begin no day after this time. Default: no limit
  --least    play this number of days even after that time. Default 0
  --jobs     processes side by side. Default 2
  --no-shrink  leave the schedule of a day that breaks a promise as it is
  --keep-going  play all days, also after one that breaks a promise
  --page     write the result to docs/reliability.md

SIGTERM ends a run after the days that are under way, with what was played so far.
`
const WRONG_USAGE = 64
const PLAYER = new URL('player.ts', import.meta.url)
const COMPILE_CACHE = new URL('../../.cache/compile/', import.meta.url)
const SEED_MAX = 2 ** 31
/** The libraries in a process are made for one world, and keep something of each. */
const DAYS_PER_PROCESS = 500
/** After this many days a run says how far it is. */
const DAYS_TOLD = 100
/** A day makes much garbage that dies young. */
const NODE_OPTIONS = ['--max-semi-space-size=64']

const say = (text: string): void => void process.stdout.write(`${text}\n`)

/** Another process that plays days, one after the other. */
const startPlayer = (isShort: boolean) => {
  const child = fork(PLAYER, isShort ? [NO_SHRINK] : [], {
    execArgv: NODE_OPTIONS,
    env: { ...process.env, NODE_COMPILE_CACHE: fileURLToPath(COMPILE_CACHE) },
  })
  const ended = new Promise<undefined>((resolve) => child.once('exit', () => resolve(undefined)))
  return {
    /** `undefined` where the process ended before the day. */
    play(seed: number): Promise<Played | undefined> {
      child.send(seed)
      return Promise.race([
        ended,
        new Promise<Played>((resolve) => child.once('message', (day) => resolve(day as Played))),
      ])
    },
    async end() {
      child.kill()
      await ended
    },
  }
}

const main = async (): Promise<number> => {
  const options = parseArgs({
    options: {
      seeds: { type: 'string', default: '200' },
      seed: { type: 'string' },
      minutes: { type: 'string', default: 'Infinity' },
      least: { type: 'string', default: '0' },
      jobs: { type: 'string', default: '2' },
      'no-shrink': { type: 'boolean', default: false },
      'keep-going': { type: 'boolean', default: false },
      page: { type: 'boolean', default: false },
    },
  }).values
  const [seeds, minutes, jobs] = [options.seeds, options.minutes, options.jobs].map(Number)
  const first = Number(options.seed ?? Math.floor(Math.random() * SEED_MAX))
  if (seeds === undefined || minutes === undefined || jobs === undefined) return WRONG_USAGE
  if (![seeds, first, jobs].every(Number.isInteger) || Number.isNaN(minutes)) {
    process.stderr.write(USAGE)
    return WRONG_USAGE
  }
  const least = Number(options.least)
  const untilMs = performance.now() + minutes * 60_000
  const days: Played[] = []
  let isStopped = false
  process.once('SIGTERM', () => (isStopped = true))
  let next = first
  /** The next seed; `undefined` when the run is over. */
  const take = (): number | undefined => {
    const isEnough = performance.now() >= untilMs && next >= first + least
    const isOver = next >= first + seeds || isEnough || isStopped
    const isBroken = days.some(({ violation }) => violation !== undefined)
    return isOver || (isBroken && !options['keep-going']) ? undefined : next++
  }
  let crashed = 0
  const workOff = async () => {
    for (let seed = take(); seed !== undefined;) {
      const player = startPlayer(options['no-shrink'])
      for (let n = 0; n < DAYS_PER_PROCESS && seed !== undefined; n += 1) {
        const day = await player.play(seed)
        if (day === undefined) {
          say(`the process that played seed ${seed} has ended`)
          crashed += 1
          break
        }
        if (days.push(day) % DAYS_TOLD === 0) say(`${days.length} days are played`)
        seed = take()
      }
      await player.end()
      if (crashed > 0) return
    }
  }
  await Promise.all(Array.from({ length: jobs }, workOff))
  const broken = days.filter(({ violation }) => violation !== undefined)
  say(`seeds from ${first} on: ${figuresOf(days)}`)
  if (options.page) writeSection(sectionOf(first, days))
  const failed = broken.length + crashed
  say(`${days.length - broken.length} passed, ${failed} failed, 0 skipped`)
  return failed > 0 ? 1 : 0
}

const figuresOf = (days: readonly Played[]): string => {
  const total = (pick: (day: Played) => number): number =>
    days.reduce((sum, day) => sum + pick(day), 0)
  return (
    `${total(({ attempts }) => attempts)} attempts, ` +
    `${total(({ admitted }) => admitted)} admitted, ${total(({ steps }) => steps)} steps, ` +
    `${(total(({ simulatedMs }) => simulatedMs) / 3_600_000).toFixed(1)} simulated hours, ` +
    `${(total(({ cpuS }) => cpuS) / days.length).toFixed(2)} s of CPU time a day`
  )
}

const sectionOf = (first: number, days: readonly Played[]): Section => {
  const last = Math.max(...days.map(({ seed }) => seed))
  const broken = days
    .filter(({ violation }) => violation !== undefined)
    .toSorted((one, other) => one.seed - other.seed)
  const rows = broken.map(({ seed, violation = '' }) => [String(seed), violation])
  const list = rows.length === 0 ? [] : [table(['seed', 'broken promise'], rows)]
  const head = headOf(days.length, broken.length)
  return {
    key: `seeds ${first} to ${last}`,
    text: [`### Seeds ${first} to ${last}`, `${head} ${figuresOf(days)}.`, ...list].join('\n\n'),
  }
}

process.exitCode = await main()
