/** `npm run test:cluster`: the promises, proven on the real API server that `KUBECONFIG` names. */

import { run } from 'node:test'
import { inspect, parseArgs } from 'node:util'
import { closeAllGrounds } from './ground.ts'

const SUITES = ['rbac', 'revocation', 'tokens', 'watch', 'outage']
const TEST_LIMIT_MS = 90_000
const RUN_LIMIT_MS = 6 * 60_000

const main = async (): Promise<void> => {
  const { values } = parseArgs({ options: { suite: { type: 'string' }, only: { type: 'string' } } })
  const totals = { passed: 0, failed: 0, skipped: 0 }
  if (!process.env['KUBECONFIG']) {
    process.stdout.write('skipped: KUBECONFIG names no API server\n')
    finish({ ...totals, skipped: 1 })
    return
  }
  const giveUp = (why: string) => {
    process.stdout.write(`${why}: cleaning up\n`)
    void closeAllGrounds().finally(() => process.exit(1))
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, giveUp)
  // A timer that kept the process alive would keep the run from its end.
  setTimeout(giveUp, RUN_LIMIT_MS, 'not done in time').unref()
  const suites = values.suite === undefined ? SUITES : [values.suite]
  const events = run({
    files: suites.map((name) => new URL(`${name}.test.ts`, import.meta.url).pathname),
    // One process, so that an interrupted run can take away what it made.
    isolation: 'none',
    timeout: TEST_LIMIT_MS,
    ...(values.only === undefined ? {} : { testNamePatterns: [new RegExp(values.only)] }),
  })
  for await (const { type, data } of events) {
    // Suites are only a frame: what failed in their hooks fails their tests.
    if (type !== 'test:pass' && type !== 'test:fail') continue
    if (data.details.type === 'suite') {
      if (type === 'test:fail')
        process.stdout.write(`${data.name}: ${inspect(data.details.error)}\n`)
      continue
    }
    const seconds = (data.details.duration_ms / 1000).toFixed(1)
    const isSkipped = type === 'test:pass' && data.skip !== undefined && data.skip !== false
    totals[type === 'test:fail' ? 'failed' : isSkipped ? 'skipped' : 'passed'] += 1
    const word = type === 'test:fail' ? 'not ok' : isSkipped ? 'skip  ' : 'ok    '
    process.stdout.write(`${word} ${data.name} (${seconds} s)\n`)
    if (isSkipped && typeof data.skip === 'string') process.stdout.write(`  ${data.skip}\n`)
    if (type === 'test:fail') process.stdout.write(`${inspect(data.details.error)}\n`)
  }
  await closeAllGrounds()
  finish(totals)
}

const finish = ({ passed, failed, skipped }: Readonly<Record<string, number>>): void => {
  process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`)
  process.exitCode = failed === 0 ? 0 : 1
}

await main()
