/** `npm run test:mutation`: removes each guard in turn, and looks for the seed whose day misses it. */

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { table, today } from '../kit/result-page.ts'
import { writeSection } from '../sim/page.ts'
import { GUARDS, type Guard } from './guards.ts'
import { Mutant } from './mutant.ts'

const USAGE = `npm run test:mutation -- [--seeds N] [--only TEXT] [--minutes M] [--no-page]

  --seeds    the most days that are played for one guard. Default 500
  --only     the guards whose name contains this
  --minutes  begin with no guard after this time. Default: no limit
  --each     begin no day for a guard after this number of minutes. Default: no limit
  --jobs     guards side by side. Default 2
  --no-page  leave docs/reliability.md as it is
`

type Found = {
  readonly guard: Guard
  /** The first seed whose day broke a promise. */
  readonly seed: number | undefined
  readonly violation: string
}

const say = (text: string): void => void process.stdout.write(`${text}\n`)

/** Plays days from the first seed on until one breaks a promise. */
const hunt = async (directory: string, seeds: number, minutes: string): Promise<string> => {
  const limits = ['--seed', '1', '--seeds', String(seeds), '--minutes', minutes]
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
  return { guard, seed: seed === undefined ? undefined : Number(seed), violation }
}

const renderSection = (founds: readonly Found[], seeds: number, each: string): string => {
  const within = each === 'Infinity' ? '' : ` and of what fits into ${each} minutes`
  const missed = founds.filter(({ seed }) => seed !== undefined).length
  const rows = founds.map(({ guard, seed, violation }) => [
    guard.name,
    `\`${guard.file}\``,
    seed === undefined ? '**not within the limit**' : String(seed),
    violation.replaceAll('|', '/').replaceAll(/[\d.]{6,} ms/g, 'n ms'),
  ])
  return [
    '### Guards removed one by one',
    `${today()}: ${missed} of ${founds.length} guards were missed by the first seeds, of at most ${seeds}${within}.`,
    table(['guard', 'file', 'seed', 'what the oracle said'], rows),
  ].join('\n\n')
}

const main = async (): Promise<number> => {
  const options = parseArgs({
    options: {
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
  const seeds = Number(options.seeds)
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
        const found = readFound(guard, await hunt(mutant.directory, seeds, options.each))
        mutant.restore(guard)
        founds.push(found)
        const { seed, violation } = found
        say(seed === undefined ? `not ok ${guard.name}` : `ok ${guard.name}: ${seed}, ${violation}`)
      }
    } finally {
      mutant.delete()
    }
  }
  await Promise.all(Array.from({ length: Number(options.jobs) }, workOff))
  founds.sort((one, other) => GUARDS.indexOf(one.guard) - GUARDS.indexOf(other.guard))
  if (!options['no-page']) {
    writeSection({ key: 'guards', text: renderSection(founds, seeds, options.each) })
  }
  const failed = founds.filter(({ seed }) => seed === undefined).length
  say(`${founds.length - failed} passed, ${failed} failed, ${all - founds.length} skipped`)
  return failed === 0 ? 0 : 1
}

process.exitCode = await main()
