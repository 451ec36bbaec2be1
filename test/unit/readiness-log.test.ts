/** The log says when the sidecar becomes ready and when it ceases to be, and why. */

import { test } from 'tap'
import { ReadinessLog } from '@openclaw-k8s/auth-sidecar/observe/readiness-log.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const setUp = () => {
  const clock = new FakeClock()
  const lines: unknown[] = []
  const tell = (...line: unknown[]) => void lines.push(line)
  const state: { objection: string | undefined } = { objection: 'no keys yet' }
  const judge = async () => ({
    isReady: state.objection === undefined,
    results: [{ name: 'serving' }, { name: 'jwks', objection: state.objection }],
  })
  const readinessLog = new ReadinessLog({ clock, judge, log: { warn: tell, info: tell } })
  readinessLog.start()
  return { clock, lines, state, readinessLog }
}

test('becoming ready is one line with the checks, and a quick start has no other', async (t) => {
  const { clock, lines, state } = setUp()
  await clock.advanceAsync(3000)
  t.strictSame(lines, [])
  state.objection = undefined
  await clock.advanceAsync(60_000)
  t.strictSame(lines, [
    [{ checks: ['serving', 'jwks'], afterMs: 4000 }, 'ready: workers can connect'],
  ])
})

test('a start that takes long says what is missing, once', async (t) => {
  const { clock, lines, state } = setUp()
  await clock.advanceAsync(60_000)
  const missing = [{ checks: { jwks: 'no keys yet' } }, 'not ready: no new workers are sent here']
  t.strictSame(lines, [missing])
  state.objection = undefined
  await clock.advanceAsync(60_000)
  t.equal(lines.length, 2)
  t.match(lines[1], [{ checks: ['serving', 'jwks'] }, 'ready: workers can connect'])
})

test('ceasing to be ready is logged with its cause, and its end with its length', async (t) => {
  const { clock, lines, state, readinessLog } = setUp()
  state.objection = undefined
  await clock.advanceAsync(1000)
  state.objection = 'gone'
  await clock.advanceAsync(300_000)
  state.objection = undefined
  await clock.advanceAsync(60_000)
  t.match(lines.slice(1), [
    [{ checks: { jwks: 'gone' } }, 'not ready: no new workers are sent here'],
    [{ notReadyMs: 300_000 }, 'ready again'],
  ])
  t.equal(lines.length, 3)
  readinessLog.stop()
  t.equal(clock.pending, 0)
})
