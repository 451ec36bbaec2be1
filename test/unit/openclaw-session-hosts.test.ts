/** Session hosts: what the gateway's list says of our own workers, asked for slowly, believed with care. */

import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import type { PodName } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/device-key.ts'
import { CallRefused } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/operator-channel.ts'
import { SessionHosts } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/session-hosts.ts'
import { Sessions } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/sessions.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const INTERVAL_MS = 15_000
const POLL_MS = 60_000

const podNamed = (podName: string, namespace = 'openclaw'): PodName => ({
  namespace,
  serviceAccount: 'openclaw-worker',
  podName,
})

const row = (deviceId: string, total: unknown, available: unknown, rest: object = {}) => ({
  id: `node:${deviceId}`,
  type: 'node',
  label: deviceId,
  status: 'available',
  sessionHost: true,
  workerSlots: { total, available },
  ...rest,
})

const GATEWAY = { id: 'gateway', type: 'local', sessionHost: true }
const list = (...environments: readonly unknown[]) => ({ environments: [GATEWAY, ...environments] })

const settle = async () => {
  for (let turns = 0; turns < 4; turns += 1) await turn()
}

/** Two live sessions, `a` and `b`, and a gateway whose next answers the test chooses. */
const setUp = () => {
  const clock = new FakeClock()
  const sessions = new Sessions()
  const open = (name: string, namespace?: string) =>
    sessions.open(name, {
      pod: podNamed(name, namespace),
      podUid: `uid-${name}`,
      allowedCommands: () => ['*'],
      revoke: () => {},
    })
  const opened = { a: open('a'), b: open('b', 'other') }
  const seen = { calls: 0, forbidden: [] as string[][], faults: [] as unknown[] }
  const chosen = {
    answer: (): unknown => list(),
    isAllowed: (_pod: PodName): boolean => true,
  }
  const hosts = new SessionHosts({
    sessions,
    clock,
    random: () => 1,
    channel: {
      async call(method, params) {
        if (method !== 'environments.list' || params !== undefined) throw new Error(method)
        seen.calls += 1
        return chosen.answer()
      },
    },
    isHostingAllowed: (pod) => chosen.isAllowed(pod),
    onForbidden: (pods) => seen.forbidden.push(pods.map(({ podName }) => podName)),
    onFault: (error) => seen.faults.push(error),
  })
  /** Summed over the namespaces. */
  const count = () => {
    const hosting = hosts.summarize()
    if (hosting === undefined) return undefined
    const sum = (values: Iterable<number>) => [...values].reduce((a, b) => a + b, 0)
    return {
      free: sum(hosting.slots.values().map(({ free }) => free)),
      used: sum(hosting.slots.values().map(({ used }) => used)),
      forbidden: sum(hosting.forbidden.values()),
    }
  }
  const connect = async (answer: unknown) => {
    chosen.answer = () => answer
    hosts.connected()
    await settle()
  }
  return { clock, sessions, opened, open, seen, chosen, hosts, count, connect }
}

test('the slots of our own workers are summed by namespace', async (t) => {
  const { hosts, connect } = setUp()
  t.equal(hosts.summarize(), undefined, 'nothing is known before the first answer')
  await connect(
    list(
      { id: 'gateway', type: 'local', sessionHost: true, workerSlots: { total: 8, available: 8 } },
      row('a', 4, 3),
      row('b', 2, 0),
      row('foreign', 16, 16),
      { ...row('a', 9, 9), type: 'worker' },
    ),
  )
  t.strictSame(hosts.summarize(), {
    slots: new Map([
      ['openclaw', { free: 3, used: 1 }],
      ['other', { free: 0, used: 2 }],
    ]),
    forbidden: new Map(),
  })
})

test('a worker that hosts nothing, or is offline, adds no slot', async (t) => {
  const { count, connect } = setUp()
  await connect(
    list(row('a', 4, 4, { sessionHost: false }), row('b', 2, 2, { workerSlots: undefined })),
  )
  t.strictSame(count(), { free: 0, used: 0, forbidden: 0 })
})

test('a number of slots that cannot be true is not counted', async (t) => {
  const { count, connect, clock, chosen } = setUp()
  await connect(list(row('a', 1, 1)))
  const wrong: readonly (readonly [unknown, unknown])[] = [
    [-1, -1],
    [2, -1],
    [2, 3],
    [Number.NaN, 0],
    [null, null],
    [Infinity, 1],
    [1.5, 1],
    [65_537, 1],
    ['2', '2'],
    [undefined, undefined],
  ]
  for (const [total, available] of wrong) {
    chosen.answer = () => list(row('a', total, available), row('b', 2, 1))
    await clock.advanceAsync(POLL_MS)
    t.strictSame(
      count(),
      { free: 1, used: 1, forbidden: 0 },
      `${String(total)}, ${String(available)}`,
    )
  }
})

test('rows of any other shape are passed over', async (t) => {
  const { count, connect } = setUp()
  const odd = [null, 1, 'node:a', [], {}, { id: 1, type: 'node' }, { id: 'a', type: 'node' }]
  await connect(list(...odd, row('a', 2, 2), { ...row('b', 1, 1), workerSlots: [] }))
  t.strictSame(count(), { free: 2, used: 0, forbidden: 0 })
})

test('an unreadable answer leaves the slots unknown', async (t) => {
  for (const answer of [
    undefined,
    null,
    [],
    'x',
    {},
    { environments: 'x' },
    { environments: {} },
  ]) {
    const { clock, count, connect, seen, chosen } = setUp()
    await connect(list(row('a', 2, 2)))
    chosen.answer = () => answer
    await clock.advanceAsync(POLL_MS)
    t.equal(count(), undefined)
    t.match(seen.faults, [{ code: 'operator_unavailable' }])
  }
})

test('a failed call makes the slots unknown, and the pauses grow to ten minutes', async (t) => {
  const { clock, count, connect, seen, chosen, hosts } = setUp()
  await connect(list(row('a', 2, 2)))
  chosen.answer = () => {
    throw new Fault('operator_unavailable', 'the operator channel was disconnected')
  }
  await clock.advanceAsync(POLL_MS)
  t.equal(count(), undefined)
  t.equal(seen.calls, 2)
  for (const pauseMs of [30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000]) {
    const { calls } = seen
    await clock.advanceAsync(pauseMs - 1)
    hosts.check()
    hosts.connected()
    await settle()
    t.equal(seen.calls, calls, 'no event and no new connection shortens the pause')
    await clock.advanceAsync(1)
    t.equal(seen.calls, calls + 1)
  }
  t.equal(seen.faults.length, seen.calls - 1)

  chosen.answer = () => list(row('a', 2, 1))
  await clock.advanceAsync(600_000)
  t.strictSame(count(), { free: 1, used: 1, forbidden: 0 })
  chosen.answer = () => {
    throw new CallRefused('environments.list', 'UNAVAILABLE', 'environment inventory unavailable')
  }
  await clock.advanceAsync(POLL_MS)
  const { calls } = seen
  await clock.advanceAsync(30_000)
  t.equal(seen.calls, calls + 1, 'an answer makes the pauses short again')
})

test('a gateway that does not know the list is asked once for each connection', async (t) => {
  const { clock, connect, count, seen, chosen, hosts } = setUp()
  chosen.answer = () => {
    throw new CallRefused(
      'environments.list',
      'INVALID_REQUEST',
      'unknown method: environments.list',
    )
  }
  hosts.connected()
  await clock.advanceAsync(3_600_000)
  hosts.check()
  await clock.advanceAsync(3_600_000)
  t.equal(seen.calls, 1)
  t.equal(count(), undefined)
  t.strictSame(seen.faults, [], 'not a fault of an older gateway')

  hosts.disconnected()
  await connect(list(row('a', 2, 2)))
  t.equal(seen.calls, 2, 'another gateway may know it')
  t.strictSame(count(), { free: 2, used: 0, forbidden: 0 })
})

test('a gateway that lists its nodes without saying who hosts is asked no more either', async (t) => {
  const { clock, connect, count, seen, hosts } = setUp()
  const { sessionHost: _host, workerSlots: _slots, ...plain } = row('a', 1, 1)
  await connect({ environments: [{ id: 'gateway', type: 'local' }, plain] })
  t.equal(count(), undefined, 'unknown is not 0')
  hosts.check()
  await clock.advanceAsync(3_600_000)
  t.equal(seen.calls, 1)
  t.strictSame(seen.faults, [])

  hosts.disconnected()
  await connect({ environments: [] })
  t.equal(count(), undefined)
  hosts.disconnected()
  await connect(list(row('a', 2, 2)))
  await clock.advanceAsync(INTERVAL_MS)
  t.strictSame(count(), { free: 2, used: 0, forbidden: 0 })
})

test('events are answered by one list per interval, and silence by one per minute', async (t) => {
  const { clock, connect, seen, hosts } = setUp()
  await connect(list())
  for (let events = 0; events < 100; events += 1) hosts.check()
  await settle()
  t.equal(seen.calls, 1)
  await clock.advanceAsync(INTERVAL_MS)
  t.equal(seen.calls, 2, 'no event is forgotten')
  await clock.advanceAsync(POLL_MS - 1)
  t.equal(seen.calls, 2)
  await clock.advanceAsync(1)
  t.equal(seen.calls, 3)
  await clock.advanceAsync(INTERVAL_MS + 1)
  hosts.check()
  await settle()
  t.equal(seen.calls, 4, 'after the interval an event is answered at once')
  t.equal(clock.pending, 1)
})

test('while the channel is down nothing is known and nothing is asked', async (t) => {
  const { clock, connect, count, seen, hosts } = setUp()
  await connect(list(row('a', 2, 2)))
  hosts.disconnected()
  t.equal(count(), undefined)
  hosts.check()
  await clock.advanceAsync(3_600_000)
  t.equal(seen.calls, 1)
  t.equal(clock.pending, 0)
})

test('an answer that comes after its connection went is not used', async (t) => {
  const { count, chosen, hosts } = setUp()
  const { promise, resolve } = Promise.withResolvers<unknown>()
  chosen.answer = () => promise
  hosts.connected()
  hosts.disconnected()
  resolve(list(row('a', 2, 2)))
  await settle()
  t.equal(count(), undefined)
})

test('a session that is over no longer counts', async (t) => {
  const { connect, count, opened } = setUp()
  await connect(list(row('a', 2, 2), row('b', 4, 4)))
  opened.b.abandon()
  await settle()
  t.strictSame(count(), { free: 2, used: 0, forbidden: 0 })
})

test('a forbidden host is counted while it offers, and named once for each change', async (t) => {
  const { clock, connect, count, seen, chosen, hosts, opened, open } = setUp()
  chosen.isAllowed = ({ namespace }) => namespace === 'openclaw'
  await connect(list(row('a', 2, 2), row('b', 4, 4), row('foreign', 1, 1)))
  t.strictSame(seen.forbidden, [['b']])
  t.strictSame(count(), { free: 6, used: 0, forbidden: 1 })
  t.strictSame(hosts.summarize()?.forbidden, new Map([['other', 1]]))

  await clock.advanceAsync(POLL_MS)
  opened.b.abandon()
  await settle()
  t.equal(count()?.forbidden, 0)
  open('b', 'other')
  await clock.advanceAsync(POLL_MS)
  t.equal(seen.calls, 3)
  t.strictSame(seen.forbidden, [['b']], 'the same pod is named once')

  chosen.isAllowed = () => true
  hosts.policyChanged()
  t.equal(count()?.forbidden, 0)
  chosen.isAllowed = () => false
  hosts.policyChanged()
  t.strictSame(seen.forbidden.slice(1), [['a', 'b']], 'all that changed in one go')
  t.equal(count()?.forbidden, 2)

  chosen.answer = () => list(row('a', 2, 2), row('b', 4, 4, { sessionHost: false }))
  await clock.advanceAsync(POLL_MS)
  t.equal(count()?.forbidden, 1)
  chosen.answer = () => list(row('a', 2, 2), row('b', 4, 4))
  await clock.advanceAsync(POLL_MS)
  t.strictSame(seen.forbidden.slice(2), [['b']], 'it offers again')
})

test('a forbidden host counts although its slots cannot be read', async (t) => {
  const { connect, count, chosen } = setUp()
  chosen.isAllowed = () => false
  await connect(list(row('a', -1, 9), row('b', 1, 1, { workerSlots: undefined })))
  t.strictSame(count(), { free: 0, used: 0, forbidden: 2 })
})

test('of a long list nothing is kept but our own workers', async (t) => {
  const { connect, count, open } = setUp()
  const foreign = Array.from({ length: 50_000 }, (_, n) => row(`foreign-${n}`, 1, 1))
  await connect(list(...foreign, row('a', 2, 1)))
  t.strictSame(count(), { free: 1, used: 1, forbidden: 0 })
  open('foreign-7')
  t.strictSame(count(), { free: 1, used: 1, forbidden: 0 }, 'the next list shows it')
})

test('after a stop nothing is asked, waited for or reported', async (t) => {
  const { clock, connect, seen, hosts } = setUp()
  await connect(list())
  t.equal(clock.pending, 1)
  hosts.stop()
  t.equal(clock.pending, 0)
  hosts.check()
  hosts.connected()
  await clock.advanceAsync(POLL_MS)
  t.equal(seen.calls, 1)

  const late = setUp()
  const { promise, reject } = Promise.withResolvers<unknown>()
  late.chosen.answer = () => promise
  late.hosts.connected()
  late.hosts.stop()
  reject(new Fault('operator_unavailable', 'the operator channel has stopped'))
  await settle()
  t.strictSame(late.seen.faults, [])
  t.equal(late.clock.pending, 0)
})

test('a bug in the reading of the list is a bug, not a failed call', async (t) => {
  const { chosen, hosts, seen } = setUp()
  chosen.answer = () => {
    throw new TypeError('a bug')
  }
  const rejected = new Promise((resolve) => process.once('unhandledRejection', resolve))
  hosts.connected()
  t.match(await rejected, { message: 'a bug' })
  t.strictSame(seen.faults, [])
})
