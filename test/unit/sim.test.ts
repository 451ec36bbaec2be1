/** The simulation itself: that a seed repeats, that a day is lived, and that a broken promise shows. */

import { test } from 'tap'
import { playDay } from '../sim/day.ts'
import { drawSchedule, type Schedule } from '../sim/schedule.ts'
import { serializeCrypto } from '../sim/settle.ts'
import { shrink } from '../sim/shrink.ts'
import { Oracle } from '../sim/oracle.ts'
import { Truth } from '../sim/truth.ts'

serializeCrypto()

/** A morning: the first events of a day, with few pods. */
const morningOf = (seed: number): Schedule => {
  const { events } = drawSchedule(seed)
  return { pods: 4, events: events.slice(0, 25) }
}

test('a seed plays the same day again, and workers are let in and turned away in it', async (t) => {
  const first = await playDay(7, morningOf(7))
  const second = await playDay(7, morningOf(7))
  t.equal(first.violation, undefined)
  const figures = ({ steps, admitted, attempts, simulatedMs }: typeof first) => ({
    steps,
    admitted,
    attempts,
    simulatedMs,
  })
  t.same(figures(second), figures(first))
  t.ok(first.admitted > 0 && first.attempts > first.admitted, JSON.stringify(figures(first)))
})

test('another seed draws another day', async (t) => {
  t.not(JSON.stringify(drawSchedule(1)), JSON.stringify(drawSchedule(2)))
  t.same(drawSchedule(1), drawSchedule(1))
})

const tokenOf = (jti: string) =>
  ['{}', JSON.stringify({ jti }), 's'.repeat(64)]
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.')

const judge = () => {
  const truth = new Truth()
  let nowMs = 1000
  truth.allow(0, ['worker-red'])
  const oracle = new Oracle({ truth, now: () => nowMs })
  truth.pods.set('uid', {
    name: 'worker-1',
    uid: 'uid',
    account: 'worker-red',
    addresses: [{ address: '10.1.0.1', untilMs: Infinity }],
  })
  oracle.minted(tokenOf('id'), 'account-uid')
  const admit = (changes = {}) =>
    oracle.wroteAudit(
      JSON.stringify({
        event: 'k8s-auth-success',
        podUid: 'uid',
        remoteIp: '10.1.0.1',
        credentialId: 'id',
        streamId: 's-1',
        ...changes,
      }),
    )
  const passTime = (ms: number) => {
    nowMs += ms
    oracle.check()
  }
  return { truth, oracle, admit, passTime }
}

test('the oracle finds an admission that should not have been', async (t) => {
  const good = judge()
  good.admit()
  good.passTime(60_000)
  t.equal(good.oracle.violation, undefined)

  const stranger = judge()
  stranger.admit({ podUid: 'another' })
  t.match(stranger.oracle.violation, 'stranger')

  const stolen = judge()
  stolen.admit({ remoteIp: '10.1.0.2' })
  t.match(stolen.oracle.violation, 'never had the address')

  const unlisted = judge()
  unlisted.truth.allow(500, [])
  unlisted.admit()
  t.match(unlisted.oracle.violation, 'is not allowed')
})

test('the oracle finds a stream that outlives its pod, and gives a muted watch its time', async (t) => {
  const late = judge()
  late.admit()
  Object.assign(late.truth.pods.get('uid') ?? {}, { goneAt: 1000 })
  late.passTime(6000)
  t.equal(late.oracle.violation, undefined)
  late.passTime(1000)
  t.match(late.oracle.violation, 'its pod is gone')

  const muted = judge()
  muted.admit()
  const heal = muted.truth.trouble('api', () => 1000)
  Object.assign(muted.truth.pods.get('uid') ?? {}, { goneAt: 1000 })
  muted.passTime(30_000)
  t.equal(muted.oracle.violation, undefined)
  heal()
  muted.passTime(60_000)
  t.match(muted.oracle.violation, 'its pod is gone')
})

test('the oracle finds a token in a log line', async (t) => {
  const { oracle } = judge()
  oracle.wroteLog('nothing to see')
  t.equal(oracle.violation, undefined)
  oracle.wroteLog(`what came: ${tokenOf('id')}`)
  t.match(oracle.violation, 'written down')
})

test('a schedule is shortened to what still breaks the promise', async (t) => {
  const schedule = { ...drawSchedule(3), pods: 9 }
  const [culprit] = schedule.events.slice(100)
  const found = await shrink(schedule, async ({ events }) =>
    events.some((event) => event === culprit) ? 'broken' : undefined,
  )
  t.same(found?.schedule.events, [culprit])
  t.equal(found?.schedule.pods, 1)
  t.equal(await shrink(schedule, async () => undefined), undefined)
})
