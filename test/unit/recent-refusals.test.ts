/** The recent refusals stay few, whatever anybody claims, and say who was refused. */

import { test } from 'tap'
import {
  RecentRefusals,
  type RefusedCaller,
} from '@openclaw-k8s/auth-sidecar/observe/recent-refusals.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const podOf = (podName: string) => ({
  namespace: 'openclaw',
  serviceAccount: 'openclaw-worker',
  podName,
})
const CALLER: RefusedCaller = {
  code: 'identity_not_allowed',
  address: '10.0.0.1',
  pod: podOf('worker-a'),
  isSigned: false,
}

const setUp = () => {
  const clock = new FakeClock()
  // For lru-cache no time has begun at 0.
  clock.advance(1)
  return { clock, refusals: new RecentRefusals(clock) }
}

test('refusals of one code, address and pod are one entry with its count and times', async (t) => {
  const { clock, refusals } = setUp()
  const start = clock.now()
  refusals.add(CALLER)
  clock.advance(5000)
  refusals.add(CALLER)
  refusals.add({ ...CALLER, code: 'token_expired' })
  clock.advance(5000)
  refusals.add({ ...CALLER, address: '10.0.0.2' })
  t.match(refusals.list(), [
    { address: '10.0.0.2', count: 1, firstAt: start + 10_000 },
    { code: 'token_expired', count: 1 },
    { code: 'identity_not_allowed', count: 2, firstAt: start, lastAt: start + 5000 },
  ])
})

test('an entry is kept for an hour after its last refusal', async (t) => {
  const { clock, refusals } = setUp()
  refusals.add(CALLER)
  clock.advance(59 * 60_000)
  refusals.add(CALLER)
  clock.advance(59 * 60_000)
  t.match(refusals.list(), [{ count: 1 }])
  clock.advance(60_001)
  t.strictSame(refusals.list(), [])
})

test('a caller that never stops is counted for the last hour, not since it began', async (t) => {
  const { clock, refusals } = setUp()
  const start = clock.now()
  for (let minute = 0; minute < 24 * 60; minute += 1) {
    refusals.add(CALLER)
    refusals.add(CALLER)
    clock.advance(60_000)
    const [refusal] = refusals.list()
    if (minute < 60) t.equal(refusal?.firstAt, start)
  }
  const [refusal] = refusals.list()
  t.equal(refusal?.count, 120)
  t.ok((refusal?.firstAt ?? 0) >= clock.now() - 61 * 60_000)
  clock.advance(30 * 60_000)
  t.match(refusals.list(), [{ count: 60, lastAt: clock.now() - 31 * 60_000 }])
  refusals.add(CALLER)
  t.match(refusals.list(), [{ count: 61 }])
})

test('an address that claims many pods gets few of them listed, and the others counted', async (t) => {
  const { clock, refusals } = setUp()
  for (let n = 0; n < 1000; n += 1) refusals.add({ ...CALLER, pod: podOf(`forged-${n}`) })
  refusals.add({ ...CALLER, address: '10.0.0.2' })
  const list = refusals.list()
  t.equal(list.length, 6)
  t.match(list.find(({ isOfManyPods }) => isOfManyPods)?.count, 996)
  t.ok(list.some(({ address, pod }) => address === '10.0.0.2' && pod?.podName === 'worker-a'))
  // Once they have left, others have room again.
  clock.advance(60 * 60_000 + 1)
  refusals.add({ ...CALLER, pod: podOf('later') })
  t.match(refusals.list(), [{ pod: { podName: 'later' }, isOfManyPods: false, count: 1 }])
})

test('a known entry counts on while its address has no more room', async (t) => {
  const { refusals } = setUp()
  for (let n = 0; n < 3; n += 1) {
    for (let pod = 0; pod < 6; pod += 1) refusals.add({ ...CALLER, pod: podOf(`pod-${pod}`) })
  }
  const counts = refusals.list().map(({ count }) => count)
  t.strictSame(
    counts.toSorted((a, b) => a - b),
    [3, 3, 3, 3, 6],
  )
})

test('forged names displace no proven one, and both are bounded', async (t) => {
  const { refusals } = setUp()
  refusals.add({ ...CALLER, isSigned: true })
  for (let n = 0; n < 1000; n += 1)
    refusals.add({ ...CALLER, address: `10.1.${n >> 8}.${n & 255}` })
  t.equal(refusals.list().length, 101)
  t.equal(refusals.list().filter(({ isSigned }) => isSigned).length, 1)
  for (let n = 0; n < 1000; n += 1) {
    refusals.add({ ...CALLER, isSigned: true, pod: podOf(`pod-${n}`) })
  }
  t.equal(refusals.list().length, 200)
})

test('unproven names are cut short, and a caller without a token has none', async (t) => {
  const { refusals } = setUp()
  const long = 'x'.repeat(10_000)
  refusals.add({ ...CALLER, pod: { namespace: long, serviceAccount: long, podName: long } })
  refusals.add({ ...CALLER, pod: undefined, code: 'credential_missing' })
  const names = refusals.list().flatMap(({ pod }) => Object.values(pod ?? {}))
  t.strictSame(
    names.map(({ length }) => length),
    [64, 64, 64],
  )
})
