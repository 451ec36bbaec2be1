/** Runs suites of `node:test` in this process: a line for each test, the totals last, nothing left behind. */

import { run } from 'node:test'
import { inspect, parseArgs } from 'node:util'
import { takeAllAway } from './leftovers.ts'

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
}

/** `--suite NAME` runs one of them, `--only PATTERN` the tests whose name matches. */
export const runSuites = async (plan: Plan): Promise<Totals> => {
  const { values } = parseArgs({ options: { suite: { type: 'string' }, only: { type: 'string' } } })
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
  const totals: Totals = { passed: 0, failed: 0, skipped: 0 }
  for await (const event of events) count(event, totals)
  await takeAllAway()
  const isWhole = values.suite === undefined && values.only === undefined
  return finish([totals, ...(isWhole ? ((await plan.afterwards?.()) ?? []) : [])])
}

const whyNoApiServer = (): string | undefined =>
  process.env['KUBECONFIG'] ? undefined : 'KUBECONFIG names no API server'

type TestEvent = ReturnType<typeof run> extends AsyncIterable<infer E> ? E : never

const count = ({ type, data }: TestEvent, totals: Totals): void => {
  if (type !== 'test:pass' && type !== 'test:fail') return
  const isSkipped = type === 'test:pass' && data.skip !== undefined && data.skip !== false
  // Suites are only a frame: what failed in their hooks fails their tests. One that is skipped
  // says nothing of its tests, and counts itself.
  if (data.details.type === 'suite' && !isSkipped) {
    if (type === 'test:fail')
      process.stdout.write(`${data.name}: ${reasonOf(data.details.error)}\n`)
    return
  }
  const seconds = (data.details.duration_ms / 1000).toFixed(1)
  totals[type === 'test:fail' ? 'failed' : isSkipped ? 'skipped' : 'passed'] += 1
  const word = type === 'test:fail' ? 'not ok' : isSkipped ? 'skip  ' : 'ok    '
  process.stdout.write(`${word} ${data.name} (${seconds} s)\n`)
  if (isSkipped && typeof data.skip === 'string') process.stdout.write(`  ${data.skip}\n`)
  if (type === 'test:fail') process.stdout.write(`${reasonOf(data.details.error)}\n`)
}

/** What the test threw, without the runner's words about it. */
const reasonOf = (error: Error): string => inspect(error.cause ?? error)

const finish = (all: readonly Totals[]): Totals => {
  const sum = (key: keyof Totals) => all.reduce((total, each) => total + each[key], 0)
  const [passed, failed, skipped] = [sum('passed'), sum('failed'), sum('skipped')]
  process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`)
  process.exitCode = failed === 0 ? 0 : 1
  return { passed, failed, skipped }
}
