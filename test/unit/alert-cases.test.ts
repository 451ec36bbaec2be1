/** The alerts are tried as they are shipped, only faster, and none is left out. */

import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { CASES } from '../alerts/cases.ts'
import { FACTOR, scaleRules } from '../alerts/scaled-rules.ts'
import { readAlerts, RULES } from '../kit/observability-files.ts'

test('each shipped alert has one state that brings it about, and each state is of an alert', async (t) => {
  const tried = CASES.flatMap(({ alerts }) => alerts)
  const shipped = readAlerts().map(({ alert }) => alert)
  t.strictSame(tried.toSorted(), shipped.toSorted())
})

test('every time of a rule is divided by the one factor, and nothing else changes', async (t) => {
  const of = (rule: string) => scaleRules(rule)
  t.equal(of('for: 5m'), 'for: 5000ms')
  t.equal(of('rate(x[10m]) > 0.5'), 'rate(x[10000ms]) > 0.5')
  t.equal(of('present_over_time(x[1d])'), 'present_over_time(x[1440000ms])')
  t.equal(of('x_stale_seconds > 120'), 'x_stale_seconds > 2')
  t.equal(of('x_seconds - time() < 604800'), 'x_seconds - time() < 10080')
  for (const kept of [
    'x > 8000',
    'lag_p99_seconds > 0.2',
    'y - time() > 0',
    'summary: down for 5 m',
  ]) {
    t.equal(of(kept), kept)
  }
  const times = /\[\w+\]|for: \w+/g
  const text = readFileSync(RULES, 'utf8')
  const scaled = scaleRules(text)
  const count = text.match(times)?.length
  t.equal(scaled.match(times)?.length, count)
  t.equal(scaled.match(/\[\d+ms\]|for: \d+ms/g)?.length, count, `none is left beside ${FACTOR}`)
})
