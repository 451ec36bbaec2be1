/** Runs the suite in its namespace and reports each test as it ends, the totals to its parent. */

import { run } from 'node:test'
import { inspect } from 'node:util'
import { absenceOf } from './bounded-test.ts'
import type { TestResult } from '../kit/result-page.ts'
import { raisePods } from '../kit/namespace.ts'
import { readRun } from './suite-plan.ts'

/** Of a failure's text, in characters: what was wrong stands first, what the processes said last of all. */
const FAILURE_SHOWN = { first: 2000, last: 4000 }

const [only] = process.argv.slice(2)
const { mode, gateway, node } = readRun()
raisePods([gateway.entry, node.entry])

const totals = { passed: 0, failed: 0, skipped: 0 }
const say = (text: string) => process.stdout.write(`${text}\n`)
const report = (test: TestResult): void => {
  if (test.outcome !== 'absent') totals[test.outcome] += 1
  process.send?.({ test })
}

const events = run({
  files: [new URL('suite.test.ts', import.meta.url).pathname],
  isolation: 'none',
  concurrency: false,
  ...(only === undefined ? {} : { testNamePatterns: [new RegExp(only, 'u')] }),
})
for await (const { type, data } of events) {
  // The suite around the tests counts only when it fails by itself: the rig could not be built.
  if (type === 'test:pass' && data.details.type !== 'suite') {
    const result = resultOf(data)
    report(result)
    say(lineOf(result, titleOf(data)))
  }
  if (type === 'test:fail' && failureType(data.details.error) !== 'subtestsFailed') {
    report({ name: data.name, outcome: 'failed' })
    say(`FAIL ${mode}: ${titleOf(data)}`)
    const { error } = data.details
    say(shorten(textOf(error.cause ?? error)))
  }
  // It is over once its rig was stopped. A process that a test left behind would keep the events from ending.
  if ((type === 'test:pass' || type === 'test:fail') && data.nesting === 0) break
  if (type === 'test:diagnostic' && data.nesting > 0) say(`     ${data.message}`)
}
await new Promise((resolve) => process.send?.(totals, resolve))
// What a test left open must not keep the namespace: its end is the end of everything in it.
process.exit(totals.failed === 0 ? 0 : 1)

function resultOf({ name, skip }: { name: string; skip?: string | boolean }): TestResult {
  const reason = absenceOf(skip)
  if (reason !== undefined) return { name, outcome: 'absent', reason }
  return { name, outcome: skip === undefined || skip === false ? 'passed' : 'skipped' }
}

function lineOf({ name, outcome, reason }: TestResult, title: string): string {
  if (outcome === 'absent') return `     ${mode}: not in this version: ${name} (${reason})`
  return `${outcome === 'skipped' ? 'skip' : 'ok  '} ${mode}: ${title}`
}

function titleOf(data: { name: string; details: { duration_ms: number } }): string {
  return `${data.name} (${(data.details.duration_ms / 1000).toFixed(1)} s)`
}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : inspect(error)
}

function shorten(text: string): string {
  const { first, last } = FAILURE_SHOWN
  if (text.length <= first + last) return text
  return `${text.slice(0, first)}\n[…]\n${text.slice(-last)}`
}

function failureType(error: Error): unknown {
  return 'failureType' in error ? error.failureType : undefined
}
