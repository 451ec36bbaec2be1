/** Another process: plays the day of each seed it is sent, and shrinks one that breaks a promise. */

import { mkdirSync, writeFileSync } from 'node:fs'
import { playDay } from './day.ts'
import { NO_SHRINK, type Played } from './played.ts'
import { drawSchedule } from './schedule.ts'
import { serializeCrypto } from './settle.ts'
import { shrink } from './shrink.ts'

const TRACES = new URL('../../.cache/sim/', import.meta.url)

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const playOnRequest = (): void => {
  serializeCrypto()
  // Nobody reads where an error of a simulated fault came from.
  Error.stackTraceLimit = 0
  const playOne = async (seed: number) => {
    const before = process.cpuUsage()
    const { trace, ...result } = await playDay(seed, drawSchedule(seed))
    if (result.violation !== undefined) await report(seed, result.violation, trace)
    const { user, system } = process.cpuUsage(before)
    const played: Played = { ...result, seed, cpuS: (user + system) / 1e6 }
    process.send?.(played)
  }
  process.on('message', (seed: number) => void playOne(seed))
}

/** Writes the trace of a day that broke a promise, and that of the shortest one that still does. */
const report = async (seed: number, violation: string, trace: readonly string[]) => {
  mkdirSync(TRACES, { recursive: true })
  const save = (name: string, lines: readonly string[]) => {
    const file = new URL(`${seed}${name}.trace`, TRACES)
    writeFileSync(file, `${lines.join('\n')}\n`)
    say(`  ${file.pathname}`)
  }
  say(`seed ${seed}: ${violation}`)
  save('', trace)
  if (process.argv.includes(NO_SHRINK)) return
  const shorter = await shrink(drawSchedule(seed), async (schedule) => {
    const result = await playDay(seed, schedule)
    return result.violation === undefined ? undefined : result
  })
  if (shorter === undefined) return
  const { schedule, found } = shorter
  say(`  ${schedule.events.length} events and ${schedule.pods} pods are enough: ${found.violation}`)
  save('-short', found.trace)
}

playOnRequest()
