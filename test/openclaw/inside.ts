/** Runs the suite in its namespace and reports each test as it ends, the totals to its parent. */

import { run } from 'node:test'
import { inspect } from 'node:util'
import { raisePods } from './namespace.ts'

const FAILURE_SHOWN = 4000

const [mode = 'token', only] = process.argv.slice(2)
process.env['OPENCLAW_SUITE_MODE'] = mode
raisePods()

const totals = { passed: 0, failed: 0, skipped: 0 }
const say = (text: string) => process.stdout.write(`${text}\n`)

const events = run({
  files: [new URL('suite.test.ts', import.meta.url).pathname],
  isolation: 'none',
  concurrency: false,
  ...(only === undefined ? {} : { testNamePatterns: [new RegExp(only, 'u')] }),
})
for await (const { type, data } of events) {
  // The suite around the tests counts only when it fails by itself: the rig could not be built.
  if (type === 'test:pass' && data.details.type !== 'suite') {
    const isSkipped = data.skip !== undefined && data.skip !== false
    totals[isSkipped ? 'skipped' : 'passed'] += 1
    say(`${isSkipped ? 'skip' : 'ok  '} ${mode}: ${titleOf(data)}`)
  }
  if (type === 'test:fail' && failureType(data.details.error) !== 'subtestsFailed') {
    totals.failed += 1
    say(`FAIL ${mode}: ${titleOf(data)}`)
    const { error } = data.details
    say(textOf(error.cause ?? error).slice(0, FAILURE_SHOWN))
  }
  if (type === 'test:diagnostic' && data.nesting > 0) say(`     ${data.message}`)
}
await new Promise((resolve) => process.send?.(totals, resolve))
// What a test left open must not keep the namespace: its end is the end of everything in it.
process.exit(totals.failed === 0 ? 0 : 1)

function titleOf(data: { name: string; details: { duration_ms: number } }): string {
  return `${data.name} (${(data.details.duration_ms / 1000).toFixed(1)} s)`
}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : inspect(error)
}

function failureType(error: Error): unknown {
  return 'failureType' in error ? error.failureType : undefined
}
