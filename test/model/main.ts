/** `npm run check:model [-- --deep] [-- --write]`: explores the model, and takes each guard out of it. */

import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { parseAutomaton, renderAutomaton } from './automaton.ts'
import { GUARDS } from './guards.ts'
import { renderSection, replaceSection, thousands, type Found } from './page.ts'
import { EXPLORATIONS, PROMISES } from './promises.ts'
import { listMissing, verify, type Verification } from './spin.ts'

const AUTOMATON = new URL('automaton.txt', import.meta.url)
const PAGE = new URL('../../docs/reliability.md', import.meta.url)
/** The world in which the guards are taken out: small enough for the shortest counterexample. */
const SMALL = ['-DTROUBLES=2', '-DONE_POD']

const totals = { passed: 0, failed: 0 }
const check = (isRight: boolean, name: string, found: string): void => {
  totals[isRight ? 'passed' : 'failed'] += 1
  process.stdout.write(`${isRight ? 'ok' : 'not ok'} - ${name}: ${found}\n`)
}

const explore = (isDeep: boolean) =>
  EXPLORATIONS.filter((each) => isDeep || each.isDeep !== true).map((each) => {
    const verified = verify(each)
    const { states, seconds, broken, isComplete, story } = verified
    const size = `${thousands(states)} states in ${seconds.toFixed(1)} s`
    const problem = broken ?? 'the exploration did not end'
    const isRight = isComplete && broken === undefined
    check(isRight, each.name, isRight ? size : [problem, ...story].join('\n    '))
    return { ...each, ...verified }
  })

const takeOut = (): readonly Found[] =>
  GUARDS.map((guard) => {
    const flags = [...SMALL, `-DWITHOUT_${guard.name}`]
    const verified =
      guard.isLiveness === true
        ? verify({
            flags: [...flags, '-DLIVENESS'],
            build: ['-DNFAIR=3', '-O0'],
            run: ['-a', '-f', '-m1000000'],
          })
        : // Breadth first, so that the counterexample is one of the shortest.
          verify({ flags, build: ['-DSAFETY', '-DBFS', '-O0'], run: [] })
    const { broken, story } = verified
    const promise = promiseOf(verified)
    const isRight = guard.isLiveness === true ? promise === 'liveness' : promise in PROMISES
    check(isRight, `without ${guard.name}`, isRight ? `breaks ${promise}` : `breaks ${broken}`)
    return { guard, promise, story }
  })

/** Which promise the verifier found broken: its number, `liveness`, or nothing. */
const promiseOf = ({ broken = '' }: Verification): string =>
  broken.includes('acceptance cycle')
    ? 'liveness'
    : (/assertion violated +\(*(\d)&&/u.exec(broken)?.[1] ?? '')

const main = (): number => {
  const { values } = parseArgs({
    options: {
      deep: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  })
  const missing = listMissing()
  if (missing.length > 0) {
    process.stdout.write(`skipped: there is no ${missing.join(', ')} here\n`)
    process.stdout.write('0 passed, 0 failed, 1 skipped\n')
    return 0
  }
  const explored = explore(values.deep)
  const automaton = renderAutomaton(explored.flatMap(({ observed }) => observed))
  const found = takeOut()
  if (values.write) {
    writeFileSync(AUTOMATON, automaton)
    const page = readFileSync(PAGE, 'utf8')
    writeFileSync(PAGE, replaceSection(page, renderSection(explored, found, automaton)))
  }
  const rows = parseAutomaton(automaton).length
  const isWritten = readFileSync(AUTOMATON, 'utf8') === automaton
  check(isWritten, 'test/model/automaton.txt is what the model says', `${rows} steps`)
  const page = readFileSync(PAGE, 'utf8')
  const told = explored.filter(({ states }) => page.includes(` ${thousands(states)} `)).length
  check(
    told === explored.length,
    'docs/reliability.md is of this model',
    `${told} of ${explored.length}`,
  )
  process.stdout.write(`${totals.passed} passed, ${totals.failed} failed, 0 skipped\n`)
  return totals.failed === 0 ? 0 : 1
}

process.exitCode = main()
