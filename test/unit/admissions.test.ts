/** No order of events lets a revoked worker in or leaves a revoked stream open, and the registry keeps its bounds. */

import { test } from 'tap'
import type { Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import type { Claims } from '@openclaw-k8s/auth-sidecar/identity.ts'
import {
  step,
  type LifecycleEvent,
  type State,
} from '@openclaw-k8s/auth-sidecar/admissions/lifecycle.ts'
import type { Admission, LiveStream } from '@openclaw-k8s/auth-sidecar/admissions/admission.ts'
import { AdmissionRegistry } from '@openclaw-k8s/auth-sidecar/admissions/registry.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const EVENTS: readonly LifecycleEvent[] = ['admit', 'revoke', 'finish']
const LENGTH_MAX = 6

/** Every sequence of events of up to six, 1,092 of them. */
const sequences = (): readonly (readonly LifecycleEvent[])[] => {
  const all: (readonly LifecycleEvent[])[] = []
  let last: (readonly LifecycleEvent[])[] = [[]]
  for (let length = 1; length <= LENGTH_MAX; length += 1) {
    last = last.flatMap((sequence) => EVENTS.map((event) => [...sequence, event]))
    all.push(...last)
  }
  return all
}

const run = (events: readonly LifecycleEvent[]) => {
  let state: State = 'pending'
  return events.map((event) => {
    const [next, effect] = step(state, event)
    state = next
    return { event, effect, state: next }
  })
}

const ADDRESS = '127.0.0.11'
const claimsOf = (podUid: string) => ({ podUid }) as unknown as Claims

const setUp = (limits: { streamsMax?: number; streamsPerPodMax?: number } = {}) => {
  const clock = new FakeClock()
  const streams = new AdmissionRegistry({
    streamsMax: 1000,
    streamsPerPodMax: 1000,
    ...limits,
    clock,
  })
  const begin = (podUid: string): Admission => {
    const verdict = streams.begin(claimsOf(podUid), ADDRESS)
    if (!verdict.ok) throw new Error(verdict.code)
    return verdict.value
  }
  return { clock, streams, begin }
}

const fakeStream = () => {
  const seen = { closes: [] as Code[], pings: 0, destroys: 0 }
  const stream: LiveStream = {
    counts: {
      bytesUp: 1,
      bytesDown: 2,
      messagesUp: 3,
      messagesDown: 4,
    },
    close: (code) => void seen.closes.push(code),
    ping: () => void (seen.pings += 1),
    destroy: () => void (seen.destroys += 1),
  }
  return { seen, stream }
}

test('whatever the order of events, nothing is released after a revocation or an end', async (t) => {
  const all = sequences()
  t.equal(all.length, 1092)
  for (const events of all) {
    const steps = run(events)
    const name = events.join(' ')
    const over = events.findIndex((event) => event !== 'admit')
    const late = steps.slice(over === -1 ? events.length : over)
    if (late.some(({ effect }) => effect === 'release')) t.fail(`${name}: released too late`)
    const count = (effect: string) => steps.filter((each) => each.effect === effect).length
    if (count('release') > 1) t.fail(`${name}: released twice`)
    const first = events.indexOf('revoke')
    const end = events.indexOf('finish')
    const isRevoked = first !== -1 && (end === -1 || first < end)
    const wasAdmitted = isRevoked && events.slice(0, first).includes('admit')
    if (count('close') !== (isRevoked && wasAdmitted ? 1 : 0)) t.fail(`${name}: closes`)
    if (count('abort') !== (isRevoked && !wasAdmitted ? 1 : 0)) t.fail(`${name}: aborts`)
    if (count('forget') !== (end === -1 ? 0 : 1)) t.fail(`${name}: forgets`)
    if ((steps.at(-1)?.state === 'gone') !== (end !== -1)) t.fail(`${name}: wrong last state`)
  }
})

test('an admission, its signal and its stream follow the same rules', async (t) => {
  for (const events of sequences()) {
    const { streams, begin } = setUp()
    const admission = begin('pod')
    const { seen, stream } = fakeStream()
    let released = 0
    for (const event of events) {
      if (event === 'revoke') admission.revoke('draining')
      else if (event === 'finish') admission.finish()
      else if (admission.admit('node')) {
        released += 1
        admission.attach(stream)
      }
    }
    const name = events.join(' ')
    const over = events.findIndex((event) => event !== 'admit')
    const mayEnter = over !== 0
    if (released !== (mayEnter ? 1 : 0)) t.fail(`${name}: released ${released}`)
    const isClosed = mayEnter && over !== -1 && events[over] === 'revoke'
    if (seen.closes.length !== (isClosed ? 1 : 0)) t.fail(`${name}: closed`)
    const isAborted = over === 0 && events[0] === 'revoke'
    if (admission.signal.aborted !== isAborted) t.fail(`${name}: aborted`)
    if (streams.size !== (events.includes('finish') ? 0 : 1)) t.fail(`${name}: size`)
  }
})

test('the first reason for a revocation is the one that is reported', async (t) => {
  const { begin } = setUp()
  const admission = begin('pod')
  const { seen, stream } = fakeStream()
  admission.admit('node')
  admission.attach(stream)
  admission.revoke('review_rejected')
  admission.revoke('draining')
  t.equal(admission.code, 'review_rejected')
  t.strictSame(seen.closes, ['review_rejected'])
})

test('a denial leaves a stream that closes already no more time than others', async (t) => {
  const { clock, begin } = setUp()
  for (const [first, second, destroyedAfterMs] of [
    ['displaced', 'pod_deleted', 900],
    ['draining', 'service_account_deleted', 900],
    ['pod_deleted', 'service_account_deleted', 400],
    ['displaced', 'draining', undefined],
  ] as const) {
    const { seen, stream } = fakeStream()
    const admission = begin('a')
    admission.admit('node')
    admission.attach(stream)
    admission.revoke(first)
    clock.advance(500)
    admission.revoke(second)
    const deadlineMs = destroyedAfterMs ?? 10_000
    clock.advance(deadlineMs - 1)
    t.equal(seen.destroys, 0, `${first}, ${second}`)
    clock.advance(1)
    t.equal(seen.destroys, destroyedAfterMs === undefined ? 0 : 1, `${first}, ${second}`)
    t.strictSame(seen.closes, [first], 'the first reason is the one that is told')
    admission.finish()
    t.equal(clock.pending, 0)
  }
})

test('the caps hold in total and per pod, and an end makes room again', async (t) => {
  const { streams, begin } = setUp({ streamsMax: 3, streamsPerPodMax: 2 })
  const first = begin('a')
  begin('a')
  t.strictSame(streams.begin(claimsOf('a'), ADDRESS), {
    ok: false,
    code: 'too_many_streams_of_pod',
  })
  begin('b')
  t.strictSame(streams.begin(claimsOf('c'), ADDRESS), { ok: false, code: 'too_many_streams' })
  first.finish()
  first.finish()
  t.equal(streams.size, 2)
  t.equal(streams.begin(claimsOf('a'), ADDRESS).ok, true)
  t.strictSame(streams.begin(claimsOf('b'), ADDRESS), { ok: false, code: 'too_many_streams' })
})

test('a revocation reaches the pending and live admissions of its pod, and no others', async (t) => {
  const { streams, begin } = setUp()
  const [pending, live, other] = [begin('a'), begin('a'), begin('b')]
  const { seen, stream } = fakeStream()
  live.admit('node')
  live.attach(stream)
  streams.revokePod('a', 'review_rejected')
  t.equal(pending.signal.aborted, true)
  t.equal(pending.admit('node'), false)
  t.strictSame(seen.closes, ['review_rejected'])
  t.equal(other.state, 'pending')
})

test('a review ends the admissions it finds a reason for, and a pending one can be ended alone', async (t) => {
  const { streams, begin } = setUp()
  const [pending, live, other] = [begin('a'), begin('a'), begin('b')]
  const { seen, stream } = fakeStream()
  live.admit('node')
  live.attach(stream)
  t.equal(live.role, 'node')
  streams.revokePending('a', 'pod_terminating')
  t.strictSame(
    [pending.signal.aborted, pending.code, live.state],
    [true, 'pod_terminating', 'admitted'],
  )
  streams.review(({ claims }) => (claims.podUid === 'a' ? 'identity_not_allowed' : undefined))
  t.strictSame(seen.closes, ['identity_not_allowed'])
  t.strictSame([live.state, other.state], ['closing', 'pending'])
})

const beginUnverified = (
  streams: AdmissionRegistry,
  podUid: string,
  address = ADDRESS,
): Admission => {
  const verdict = streams.beginUnverified(claimsOf(podUid), address)
  if (!verdict.ok) throw new Error(verdict.code)
  return verdict.value
}

test('an unverified admission takes no place from streams or from the pod it names', async (t) => {
  const { streams, begin } = setUp({ streamsMax: 2, streamsPerPodMax: 1 })
  for (const address of ['10.0.0.1', '10.0.0.2', '10.0.0.3']) beginUnverified(streams, 'a', address)
  t.equal(streams.size, 0)
  begin('a')
  begin('b')
  t.equal(streams.size, 2)
})

test('a confirmed admission takes both places, and is refused if there are none', async (t) => {
  const { streams, begin } = setUp({ streamsMax: 2, streamsPerPodMax: 1 })
  const [first, second] = [beginUnverified(streams, 'a'), beginUnverified(streams, 'a')]
  t.equal(streams.confirm(first).ok, true)
  t.equal(streams.size, 1)
  const refused = { ok: false, code: 'too_many_streams_of_pod' }
  t.strictSame(streams.confirm(second), refused)
  t.strictSame(streams.begin(claimsOf('a'), ADDRESS), refused)
  begin('b')
  t.strictSame(streams.confirm(second), { ok: false, code: 'too_many_streams' })
  for (const admission of [second, first]) admission.finish()
  t.equal(streams.size, 1)
  t.equal(streams.begin(claimsOf('a'), ADDRESS).ok, true)
})

test('unverified admissions are limited per address and in total, and a place is given back', async (t) => {
  const { streams, begin } = setUp()
  const full = { ok: false, code: 'keys_unavailable' }
  const ofNetwork = Array.from({ length: 8 }, (_, n) =>
    beginUnverified(streams, 'a', `2001:db8:1:2::${n}`),
  )
  t.strictSame(streams.beginUnverified(claimsOf('a'), '2001:db8:1:2:3:4:5:6'), full)
  t.equal(streams.beginUnverified(claimsOf('a'), '2001:db8:1:3::1').ok, true, 'the next network')
  ofNetwork[0]?.finish()
  ofNetwork[0]?.finish()
  t.equal(streams.beginUnverified(claimsOf('a'), '2001:db8:1:2::1').ok, true, 'a place came free')
  t.strictSame(streams.beginUnverified(claimsOf('a'), '2001:db8:1:2::1'), full, 'only one')
  for (let n = 9; n < 256; n += 1) beginUnverified(streams, 'b', `10.0.0.${n}`)
  t.strictSame(streams.beginUnverified(claimsOf('c'), '10.1.0.1'), full, 'in all')
  t.equal(begin('c').state, 'pending', 'which is nothing to those with a signature')
})

test('a revocation reaches unverified admissions too: by pod, by review, by drain', async (t) => {
  const { clock, streams } = setUp()
  const [byPod, byPending, byReview, byDrain] = ['a', 'b', 'c', 'd'].map((podUid) =>
    beginUnverified(streams, podUid),
  ) as [Admission, Admission, Admission, Admission]
  streams.revokePod('a', 'pod_deleted')
  streams.revokePending('b', 'pod_terminating')
  streams.review(({ claims }) => (claims.podUid === 'c' ? 'identity_not_allowed' : undefined))
  t.equal(byDrain.signal.aborted, false)
  let isDrained = false
  const drained = streams.drain(0, 0).then(() => (isDrained = true))
  await clock.advanceAsync(10)
  t.strictSame(
    [byPod, byPending, byReview, byDrain].map(({ signal, code }) => [signal.aborted, code]),
    [
      [true, 'pod_deleted'],
      [true, 'pod_terminating'],
      [true, 'identity_not_allowed'],
      [true, 'draining'],
    ],
  )
  t.strictSame(streams.beginUnverified(claimsOf('a'), ADDRESS), { ok: false, code: 'draining' })
  t.equal(isDrained, false, 'the drain waits for them')
  for (const admission of [byPod, byPending, byReview, byDrain]) admission.finish()
  await drained
  t.equal(isDrained, true)
})

test('nothing begins after a drain has begun', async (t) => {
  const { streams } = setUp()
  await streams.drain(0, 0)
  t.strictSame(streams.begin(claimsOf('a'), ADDRESS), { ok: false, code: 'draining' })
})

test('only streams are counted as having carried data', async (t) => {
  const { streams, begin } = setUp()
  begin('a')
  const live = begin('b')
  live.admit('node')
  live.attach(fakeStream().stream)
  t.equal([...streams.listCounts()].length, 1)
})

/** Streams that go as soon as they are told to, and the times at which they were told. */
const openObedient = ({ clock, begin }: ReturnType<typeof setUp>, count: number) => {
  const closedAt: number[] = []
  for (let n = 0; n < count; n += 1) {
    const admission = begin(`pod-${n}`)
    admission.admit('node')
    admission.attach({
      ...fakeStream().stream,
      close: () => {
        closedAt.push(clock.monotonic())
        admission.finish()
      },
    })
  }
  return closedAt
}

test('a drain spreads its closes evenly, and ends with the last stream', async (t) => {
  const set = setUp()
  const closedAt = openObedient(set, 10)
  const drained = set.streams.drain(20_000, 5000)
  await set.clock.advanceAsync(20_000)
  t.strictSame(await drained, { streams: 10 })
  t.strictSame(
    closedAt,
    Array.from({ length: 10 }, (_, index) => index * 2000),
  )
  t.equal(set.clock.pending, 0, 'no timer is left behind')
})

test('a drain without a window still leaves the loop room between its closes', async (t) => {
  const set = setUp()
  const closedAt = openObedient(set, 1000)
  const drained = set.streams.drain(0, 5000)
  await set.clock.advanceAsync(200)
  t.strictSame(await drained, { streams: 1000 })
  const milliseconds = Map.groupBy(closedAt, Math.round)
  t.ok(
    [...milliseconds.values()].every((closes) => closes.length <= 6),
    'few at a time',
  )
})

test('a drain counts streams, not admissions that came to nothing', async (t) => {
  const { streams, clock, begin } = setUp()
  const pending = begin('a')
  pending.signal.addEventListener('abort', () => pending.finish())
  const drained = streams.drain(0, 5000)
  await clock.advanceAsync(0)
  t.strictSame(await drained, { streams: 0 })
})

test('a stream that does not go in a drain is destroyed after the grace, not before', async (t) => {
  const { streams, clock, begin } = setUp()
  const stubborn = begin('a')
  const { seen, stream } = fakeStream()
  stubborn.admit('node')
  stubborn.attach({
    ...stream,
    destroy: () => {
      stream.destroy()
      stubborn.finish()
    },
  })
  const drained = streams.drain(20_000, 5000)
  await clock.advanceAsync(24_999)
  t.equal(seen.destroys, 0)
  await clock.advanceAsync(1)
  await drained
  t.equal(seen.destroys, 1)
})

test('a drain without streams is over at once', async (t) => {
  const { streams, clock } = setUp()
  await streams.drain(20_000, 5000)
  t.equal(clock.pending, 0)
})

test('the heartbeat pings every live stream once a period, in slices', async (t) => {
  const { streams, clock, begin } = setUp()
  const pings: number[] = []
  for (let n = 0; n < 40; n += 1) {
    const admission = begin(`pod-${n}`)
    admission.admit('node')
    admission.attach({ ...fakeStream().stream, ping: () => void pings.push(clock.monotonic()) })
  }
  const { seen, stream } = fakeStream()
  begin('pending').attach(stream)
  const stop = streams.startHeartbeat(20_000)
  clock.advance(20_000)
  t.equal(pings.length, 40)
  t.equal(new Set(pings).size, 20, 'two at a time')
  t.equal(seen.pings, 0, 'a pending admission is not pinged')
  clock.advance(20_000)
  t.equal(pings.length, 80)
  stop()
  clock.advance(40_000)
  t.equal(pings.length, 80)
  t.equal(clock.pending, 0)
})
