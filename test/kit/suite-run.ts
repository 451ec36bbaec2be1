/** Runs suites of `node:test` in this process: a line for each test, the totals last, nothing left behind. */

import { run } from 'node:test'
import { inspect, parseArgs } from 'node:util'
import { takeAllAway } from './leftovers.ts'
import { countOf, type TestResult } from './result-page.ts'

export type Totals = { passed: number; failed: number; skipped: number }

type Plan = {
  /** Where the suites are: `NAME.test.ts` each. */
  readonly directory: string
  readonly suites: readonly string[]
  readonly testLimitMs: number
  readonly runLimitMs: number
  /** Why there is nothing to run, if so; without this check a suite needs `KUBECONFIG`. */
  readonly whyNot?: () => string | undefined
  /** What else counts, once the suites are through. */
  readonly afterwards?: () => Promise<readonly Totals[]>
  /** Told of each test of a whole run, once all are through. */
  readonly report?: (report: Report) => Promise<void>
  /** Default: those of this process. */
  readonly args?: readonly string[]
}

type Report = {
  readonly results: readonly TestResult[]
  /** What the tests said about themselves. */
  readonly diagnostics: readonly string[]
}

/** `--suite NAME` runs one of them, `--only PATTERN` the tests whose name matches. */
export const runSuites = async (plan: Plan): Promise<Totals> => {
  const { args = process.argv.slice(2) } = plan
  const options = { suite: { type: 'string' }, only: { type: 'string' } } as const
  const { values } = parseArgs({ args: [...args], options })
  const whyNot = (plan.whyNot ?? whyNoApiServer)()
  if (whyNot !== undefined) {
    process.stdout.write(`skipped: ${whyNot}\n`)
    return finish([{ passed: 0, failed: 0, skipped: 1 }, ...((await plan.afterwards?.()) ?? [])])
  }
  const giveUp = (why: string) => {
    process.stdout.write(`${why}: cleaning up\n`)
    void takeAllAway().finally(() => process.exit(1))
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, giveUp)
  // A timer that kept the process alive would keep the run from its end.
  setTimeout(giveUp, plan.runLimitMs, 'not done in time').unref()
  const suites = values.suite === undefined ? plan.suites : [values.suite]
  const events = run({
    files: suites.map((name) => `${plan.directory}/${name}.test.ts`),
    // One process, so that an interrupted run can take away what it made.
    isolation: 'none',
    timeout: plan.testLimitMs,
    ...(values.only === undefined ? {} : { testNamePatterns: [new RegExp(values.only)] }),
  })
  const results: TestResult[] = []
  const diagnostics: string[] = []
  for await (const event of events) {
    if (event.type === 'test:diagnostic') diagnostics.push(event.data.message)
    const result = readResult(event)
    if (result !== undefined) results.push(result)
  }
  await takeAllAway()
  const totals = totalOf(results)
  const isWhole = values.suite === undefined && values.only === undefined
  if (isWhole) await plan.report?.({ results, diagnostics })
  return finish([totals, ...(isWhole ? ((await plan.afterwards?.()) ?? []) : [])])
}

const whyNoApiServer = (): string | undefined =>
  process.env['KUBECONFIG'] ? undefined : 'KUBECONFIG names no API server'

type TestEvent = ReturnType<typeof run> extends AsyncIterable<infer E> ? E : never

/** Prints a line for each test. */
const readResult = ({ type, data }: TestEvent): TestResult | undefined => {
  if (type !== 'test:pass' && type !== 'test:fail') return undefined
  const isSkipped = type === 'test:pass' && data.skip !== undefined && data.skip !== false
  // Suites are only a frame: what failed in their hooks fails their tests. One that is skipped
  // says nothing of its tests, and counts itself.
  if (data.details.type === 'suite' && !isSkipped) {
    if (type === 'test:fail')
      process.stdout.write(`${data.name}: ${reasonOf(data.details.error)}\n`)
    return undefined
  }
  const seconds = (data.details.duration_ms / 1000).toFixed(1)
  const outcome = type === 'test:fail' ? 'failed' : isSkipped ? 'skipped' : 'passed'
  const word = { failed: 'not ok', skipped: 'skip  ', passed: 'ok    ' }[outcome]
  process.stdout.write(`${word} ${data.name} (${seconds} s)\n`)
  const reason = isSkipped && typeof data.skip === 'string' ? data.skip : undefined
  if (reason !== undefined) process.stdout.write(`  ${reason}\n`)
  if (type === 'test:fail') process.stdout.write(`${reasonOf(data.details.error)}\n`)
  return { name: data.name, outcome, ...(reason === undefined ? {} : { reason }) }
}

const totalOf = (results: readonly TestResult[]): Totals => ({
  passed: countOf('passed', results),
  failed: countOf('failed', results),
  skipped: countOf('skipped', results),
})

/** What the test threw, without the runner's words about it. */
const reasonOf = (error: Error): string => inspect(error.cause ?? error)

const finish = (all: readonly Totals[]): Totals => {
  const sum = (key: keyof Totals) => all.reduce((total, each) => total + each[key], 0)
  const [passed, failed, skipped] = [sum('passed'), sum('failed'), sum('skipped')]
  process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`)
  process.exitCode = failed === 0 ? 0 : 1
  return { passed, failed, skipped }
}
