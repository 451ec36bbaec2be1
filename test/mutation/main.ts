/** `npm run test:mutation`: removes each guard in turn, and looks for a seed whose day misses it. */

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { table, today } from '../kit/result-page.ts'
import { readSection, writeSection } from '../sim/page.ts'
import { GUARDS, type Guard } from './guards.ts'
import { Mutant } from './mutant.ts'

const USAGE = `npm run test:mutation -- [--seed S] [--seeds N] [--only TEXT] [--minutes M] [--no-page]

  --seed     the first seed to play. Default 1
  --seeds    the most days that are played for one guard. Default 500
  --only     the guards whose name contains this; of the others the page keeps what it says
  --minutes  begin with no guard after this time. Default: no limit
  --each     begin no day for a guard after this number of minutes. Default: no limit
  --jobs     guards side by side. Default 2
  --no-page  leave docs/reliability.md as it is
`

type Found = {
  readonly guard: Guard
  readonly date: string
  /** The first seed whose day broke a promise. */
  readonly seed: number | undefined
  readonly violation: string
}

const say = (text: string): void => void process.stdout.write(`${text}\n`)

type HuntOptions = {
  readonly directory: string
  readonly seed: string
  readonly seeds: string
  /** In minutes. */
  readonly each: string
}

/** Plays days from the first seed on until one breaks a promise. */
const hunt = async ({ directory, seed, seeds, each }: HuntOptions): Promise<string> => {
  const limits = ['--seed', seed, '--seeds', seeds, '--minutes', each]
  const args = [...limits, '--jobs', '1', '--no-shrink']
  const child = spawn(process.execPath, [join(directory, 'test/sim/main.ts'), ...args], {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  }
  await new Promise((resolve) => child.once('close', resolve))
  return output
}

const readFound = (guard: Guard, output: string): Found => {
  const [, seed, violation = ''] = /^seed (\d+): (.*)$/m.exec(output) ?? []
  if (!/^\d+ passed, \d+ failed, \d+ skipped$/m.test(output)) throw new Error(output.slice(-2000))
  const number = seed === undefined ? undefined : Number(seed)
  return { guard, date: today(), seed: number, violation }
}

/** What the page says of a guard from an earlier run. */
const readEarlier = (guard: Guard, text: string): Found | undefined => {
  const row = text.split('\n').find((line) => line.startsWith(`| ${guard.name} | `))
  if (row === undefined) return undefined
  const [date = '', seed = '', violation = ''] = row.slice(2, -2).split(' | ').slice(2)
  return { guard, date, seed: /^\d+$/.test(seed) ? Number(seed) : undefined, violation }
}

const renderSection = (founds: readonly Found[]): string => {
  const missed = founds.filter(({ seed }) => seed !== undefined).length
  const rows = founds.map(({ guard, date, seed, violation }) => [
    guard.name,
    `\`${guard.file}\``,
    date,
    seed === undefined ? '**not found**' : String(seed),
    violation.replaceAll('|', '/').replaceAll(/[\d.]+ ms/g, 'n ms'),
  ])
  return [
    '### Guards removed one by one',
    `${today()}: of ${GUARDS.length} guards, ${missed} are missed by the day of a seed.`,
    table(['guard', 'file', 'last run', 'seed', 'what the oracle said'], rows),
  ].join('\n\n')
}

/** Of the guards that were not looked for in this run, the page keeps what it says. */
const writePage = (founds: readonly Found[]): void => {
  const text = readSection('guards')
  const all = GUARDS.flatMap(
    (guard) => founds.find((found) => found.guard === guard) ?? readEarlier(guard, text) ?? [],
  )
  writeSection({ key: 'guards', text: renderSection(all) })
}

const main = async (): Promise<number> => {
  const options = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      seeds: { type: 'string', default: '500' },
      only: { type: 'string', default: '' },
      each: { type: 'string', default: 'Infinity' },
      jobs: { type: 'string', default: '2' },
      minutes: { type: 'string', default: 'Infinity' },
      'no-page': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  }).values
  if (options.help) {
    say(USAGE)
    return 0
  }
  const untilMs = performance.now() + Number(options.minutes) * 60_000
  const waiting = GUARDS.filter(({ name }) => name.includes(options.only))
  const all = waiting.length
  const founds: Found[] = []
  const workOff = async () => {
    const mutant = new Mutant()
    try {
      for (let guard = waiting.shift(); guard !== undefined; guard = waiting.shift()) {
        if (performance.now() > untilMs) return
        mutant.remove(guard)
        const { directory } = mutant
        const found = readFound(guard, await hunt({ ...options, directory }))
        mutant.restore(guard)
        founds.push(found)
        say(
          found.seed === undefined
            ? `not ok ${guard.name}`
            : `ok ${guard.name}: ${found.seed}, ${found.violation}`,
        )
        if (!options['no-page']) writePage(founds)
      }
    } finally {
      mutant.delete()
    }
  }
  await Promise.all(Array.from({ length: Number(options.jobs) }, workOff))
  const failed = founds.filter(({ seed }) => seed === undefined).length
  say(`${founds.length - failed} passed, ${failed} failed, ${all - founds.length} skipped`)
  return failed === 0 ? 0 : 1
}

process.exitCode = await main()
