/** The log says when the sidecar becomes ready and when it ceases to be, and why. */

import { test } from 'tap'
import { ReadinessLog } from '@openclaw-k8s/auth-sidecar/observe/readiness-log.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const setUp = () => {
  const clock = new FakeClock()
  const lines: unknown[] = []
  const tell = (...line: unknown[]) => void lines.push(line)
  const state: { objection: string | undefined; gateway?: string | undefined } = {
    objection: 'no keys yet',
  }
  const judge = async () => ({
    isReady: state.objection === undefined && state.gateway === undefined,
    results: [
      { name: 'serving' },
      { name: 'jwks', objection: state.objection },
      ...(state.gateway === undefined ? [] : [{ name: 'gateway', objection: state.gateway }]),
    ],
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

test('other reasons during the outage are logged, too, but once a minute at most', async (t) => {
  const { clock, lines, state } = setUp()
  state.objection = undefined
  await clock.advanceAsync(1000)
  lines.length = 0
  state.objection = 'gone'
  await clock.advanceAsync(90_000)
  t.equal(lines.length, 1)
  state.gateway = 'nothing listens'
  await clock.advanceAsync(5000)
  const still = 'still not ready, for other reasons'
  t.strictSame(lines.slice(1), [[{ checks: { jwks: 'gone', gateway: 'nothing listens' } }, still]])
  state.objection = undefined
  await clock.advanceAsync(600_000)
  t.strictSame(lines.slice(2), [[{ checks: { gateway: 'nothing listens' } }, still]])
  for (let look = 0; look < 60; look += 1) {
    state.gateway = `it answered ${look}`
    await clock.advanceAsync(5000)
  }
  t.equal(lines.length, 3 + 5, 'of five minutes')
  state.gateway = undefined
  await clock.advanceAsync(60_000)
  t.match(lines.slice(8), [[{}, 'ready again']])
  state.objection = 'gone again'
  await clock.advanceAsync(5000)
  t.match(lines.slice(9), [[{ checks: { jwks: 'gone again' } }, /^not ready/]])
})

test('what changes while the start takes long is logged, too', async (t) => {
  const { clock, lines, state } = setUp()
  await clock.advanceAsync(80_000)
  state.objection = 'no pods yet'
  await clock.advanceAsync(2000)
  t.match(lines, [
    [{ checks: { jwks: 'no keys yet' } }, /^not ready/],
    [{ checks: { jwks: 'no pods yet' } }, /^still not ready/],
  ])
})
