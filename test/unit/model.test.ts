/** The model of admission and revocation: what it says is what the sidecar does, and where its guards are. */

import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { traceAdmissions } from '../kit/admission-trace.ts'
import { findRejection, parseAutomaton } from '../model/automaton.ts'
import { GUARDS } from '../model/guards.ts'
import { EVENTS, PHASES } from '../model/promises.ts'
import { playDay } from '../sim/day.ts'
import { drawSchedule } from '../sim/schedule.ts'
import { serializeCrypto } from '../sim/settle.ts'

serializeCrypto()

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const AUTOMATON = parseAutomaton(read('test/model/automaton.txt'))

test('the automaton lets nobody in who was not bound, and nobody who was revoked', async (t) => {
  for (const { from, event, to } of AUTOMATON) {
    t.ok(PHASES.includes(from) && EVENTS.includes(event) && PHASES.includes(to), event)
  }
  const into = AUTOMATON.filter(({ to }) => to === 'in')
  t.strictSame(into, [{ from: 'bound', event: 'is admitted', to: 'in' }])
  const after = AUTOMATON.filter(({ from }) => from === 'revoked' || from === 'leaving')
  t.strictSame([...new Set(after.map(({ event }) => event))], ['ends'])
})

test('each guard of the model stands in the code once, and its test is there', async (t) => {
  const model = read('test/model/admission.pml')
  for (const { name, code, test: guarded } of GUARDS) {
    t.match(model, `WITHOUT_${name}\n`, `${name} is in the model`)
    t.equal(read(code.file).split(code.from).length, 2, `${name} is in ${code.file}`)
    t.match(read(guarded.file), guarded.name, `${name} has its test`)
  }
  t.ok(GUARDS.length >= 8)
  t.equal(new Set(GUARDS.map(({ name }) => name)).size, GUARDS.length)
})

/** The first events of a day, with a few pods. */
const playTraced = async (seed: number) => {
  const trace = traceAdmissions()
  try {
    const schedule = drawSchedule(seed)
    const events = schedule.events.slice(0, 40)
    const day = await playDay(seed, { ...schedule, pods: 6, events })
    return { day, admissions: trace.list() }
  } finally {
    trace.stop()
  }
}

/** One day with the `stream` protocol and one with OpenClaw's. */
const SEEDS = [5, 8]

test('whatever an admission goes through on a simulated day, the automaton accepts', async (t) => {
  const seen = new Set<string>()
  for (const seed of SEEDS) {
    const { day, admissions } = await playTraced(seed)
    t.equal(day.violation, undefined)
    const rejections = admissions.flatMap((events) => findRejection(AUTOMATON, events) ?? [])
    t.strictSame(rejections, [])
    const count = (event: string) => admissions.filter((events) => events.includes(event)).length
    t.equal(count('is admitted'), day.admitted, 'as many as the audit has')
    t.equal(count('ends'), admissions.length, 'each has ended')
    for (const event of admissions.flat()) seen.add(event)
  }
  const expected = ['begins', 'is reviewed', 'is recalled', 'is bound', 'is admitted', 'ends']
  t.strictSame(
    expected.filter((event) => !seen.has(event)),
    [],
  )
  const revoked = [...seen].filter((event) => event.startsWith('is revoked'))
  t.ok(revoked.length >= 3, revoked.join(', '))
})

test('the automaton rejects what must not be', async (t) => {
  const good = ['begins', 'is reviewed', 'is bound', 'is admitted', 'is revoked: pod', 'ends']
  t.equal(findRejection(AUTOMATON, good), undefined)
  const bad = {
    'let in after its revocation': [...good.slice(0, 3), 'is revoked: pod', 'is admitted', 'ends'],
    'let in without a review': ['begins', 'is bound', 'is admitted'],
    'let in without a pod': ['begins', 'is reviewed', 'is admitted'],
    'let in twice': [...good.slice(0, 4), 'is admitted'],
    'revoked after its end': [...good, 'is revoked: pod'],
    'displaced before it has a session': ['begins', 'is revoked: displaced'],
    'revoked for a reason that the model does not know': ['begins', 'is revoked: whim'],
  }
  for (const [what, events] of Object.entries(bad)) {
    t.type(findRejection(AUTOMATON, events), 'string', what)
  }
})
