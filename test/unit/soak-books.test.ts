/** How `npm run soak` judges what it has measured and counted. */

import { test } from 'tap'
import { newCounts } from '../bench/soak/counts.ts'
import { judgeSoak, type SoakRun } from '../bench/soak/judge.ts'
import { rewritePage } from '../bench/soak/page.ts'
import { slopePerMinute } from '../bench/soak/slope.ts'

const everySecond = (valueAt: (second: number) => number) =>
  Array.from({ length: 480 }, (_, n) => ({ atMs: n * 1000, value: valueAt(n) }))

test('a slope is found under noise, and none where there is none', async (t) => {
  const saw = (n: number) => 100 + 8 * ((n % 17) / 17)
  const near = (value: number, wanted: number) => Math.abs(value - wanted) < 0.1
  t.ok(near(slopePerMinute(everySecond(saw)), 0))
  t.ok(near(slopePerMinute(everySecond((n) => saw(n) + n / 30)), 2))
  t.equal(slopePerMinute([]), 0)
})

const METRICS = new Map([
  ['auth_attempts_total{result="success"}', 2],
  ['auth_attempts_total{result="failed"}', 1],
  ['auth_failures_total{kind="denial",code="signature_invalid"}', 1],
  ['stream_closes_total{code="completed"}', 1],
  ['stream_closes_total{code="pod_deleted"}', 1],
  ['config_reloads_total{outcome="ok"}', 10],
])
const AUDIT = [
  '{"event":"k8s-auth-success","count":2}',
  '{"event":"k8s-auth-failure"}',
  '{"event":"k8s-session-closed","count":2}',
]
const good = (): SoakRun => ({
  minutes: 10,
  streams: 500,
  date: '2026-11-28',
  counts: {
    ...newCounts(),
    admitted: 2,
    refused: new Map([['signature_invalid', 1]]),
    closed: new Map([
      ['completed', 1],
      ['pod_deleted', 1],
    ]),
  },
  metrics: METRICS,
  audit: AUDIT,
  log: [],
  exit: '0',
  descriptorsLeft: 0,
  pods: 30,
  reloads: 10,
  outages: 2,
  rss: everySecond(() => 100),
  descriptors: everySecond(() => 30),
})

/** The places of the promises that do not hold. */
const broken = (run: SoakRun) => judgeSoak(run).flatMap(([, , holds], at) => (holds ? [] : [at]))

test('each promise of a soak is broken by what breaks it, and by nothing else', async (t) => {
  const run = good()
  t.strictSame(broken(run), [])
  t.strictSame(broken({ ...run, counts: { ...run.counts, problems: ['a byte'] } }), [0])
  t.strictSame(broken({ ...run, rss: everySecond((n) => 100 + n / 50) }), [1])
  t.strictSame(broken({ ...run, descriptors: everySecond((n) => 30 + n / 20) }), [2])
  const other = new Map([['completed', 2]])
  t.strictSame(broken({ ...run, counts: { ...run.counts, closed: other } }), [3], 'another code')
  t.strictSame(broken({ ...run, audit: AUDIT.slice(1) }), [4])
  t.strictSame(broken({ ...run, descriptorsLeft: 100 }), [4])
  t.strictSame(broken({ ...run, reloads: 20 }), [5])
  t.strictSame(broken({ ...run, exit: 'SIGKILL' }), [6])
})

test('a short run is not judged by its slopes', async (t) => {
  t.strictSame(broken({ ...good(), minutes: 1, rss: everySecond((n) => 100 + n) }), [])
})

test('the page tells which promise was broken, and keeps the rest', async (t) => {
  const page = 'before\n<!-- begin soak -->\nthe last run\n<!-- end soak -->\nafter\n'
  const run = { ...good(), exit: '70' }
  const written = rewritePage(page, run, judgeSoak(run))
  t.match(written, /^before\n[^]*after\n$/)
  t.match(written, /\*\*6 of 7 promises held\*\*/)
  t.match(written, /^\| the process ends with 0 when it is told to \| 70 \| \*\*no\*\* \|$/m)
  t.notMatch(written, /the last run/)
})
