/** An outage is told at its begin and at its end, and what flaps is one outage. */

import { test } from 'tap'
import { Outage } from '@openclaw-k8s/auth-sidecar/lib/outage.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const setUp = () => {
  const clock = new FakeClock()
  const told: string[] = []
  const outage = new Outage({
    clock,
    onBegin: (error) => void told.push(`begin: ${String(error)}`),
    onEnd: (lengthMs) => void told.push(`end after ${lengthMs} ms`),
  })
  return { clock, told, outage }
}

test('however often something fails, its outage is told once, with its first cause', async (t) => {
  const { clock, told, outage } = setUp()
  outage.worked()
  for (let n = 0; n < 50; n += 1) {
    outage.failed(`cause ${n}`)
    clock.advance(1000)
  }
  t.strictSame(told, ['begin: cause 0'])
  outage.worked()
  clock.advance(4999)
  t.equal(told.length, 1, 'it has to go well for a while')
  clock.advance(1)
  t.strictSame(told, ['begin: cause 0', 'end after 50000 ms'])
  outage.failed('another')
  t.equal(told.length, 3, 'the next one is told again')
})

test('what works for a moment only is still out', async (t) => {
  const { clock, told, outage } = setUp()
  for (let n = 0; n < 20; n += 1) {
    outage.failed('cut')
    clock.advance(1000)
    outage.worked()
    clock.advance(3000)
    outage.worked()
    clock.advance(1000)
  }
  t.strictSame(told, ['begin: cut'])
  clock.advance(4000)
  t.strictSame(told, ['begin: cut', 'end after 96000 ms'])
})

test('one that is stopped tells nothing more and leaves no timer', async (t) => {
  const { clock, told, outage } = setUp()
  outage.failed('cut')
  outage.worked()
  outage.stop()
  t.equal(clock.pending, 0)
  clock.advance(60_000)
  t.strictSame(told, ['begin: cut'])
})
