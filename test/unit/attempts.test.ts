/** Who pays for a failed attempt, what a pending socket counts against, and what is forgotten in the end. */

import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { test } from 'tap'
import { addressGroup, groupStrangers } from '@openclaw-k8s/auth-sidecar/lib/address-group.ts'
import type { Caller } from '@openclaw-k8s/auth-sidecar/authz/pod-binding.ts'
import { CODES, denied, granted, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import { Attempts } from '@openclaw-k8s/auth-sidecar/edge/attempts.ts'
import { PendingSockets } from '@openclaw-k8s/auth-sidecar/edge/pending-sockets.ts'
import type { Claims } from '@openclaw-k8s/auth-sidecar/identity.ts'
import type { AuthAttempt } from '@openclaw-k8s/auth-sidecar/observe/recorder.ts'
import { TokenBuckets } from '@openclaw-k8s/auth-sidecar/lib/token-buckets.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const POD_ADDRESS = '10.0.0.11'
/** Two pods whose node has one network. */
const POD_ADDRESSES = ['2001:db8:1:2::11', '2001:db8:1:2::12']
const groupOf = groupStrangers((address) => POD_ADDRESSES.includes(address))
const CLAIMS = { podUid: 'pod-uid' } as Claims
const SIGNED = { claimed: CLAIMS, signed: CLAIMS }
const BURST = 3

const setUp = () => {
  const clock = new FakeClock()
  const recorded: Code[] = []
  const buckets = () => new TokenBuckets({ ratePerSecond: 1, burst: BURST, clock })
  const attempts = new Attempts({
    perAddress: buckets(),
    perPod: buckets(),
    shortStreams: buckets(),
    binding: {
      check: ({ address }: Caller) =>
        address === POD_ADDRESS ? granted(undefined) : denied('source_address_mismatch'),
    },
    recorder: { refused: ({ code }) => void recorded.push(code) },
    clock,
    groupOf,
  })
  const fail = (code: Code, address: string, attempt: AuthAttempt = {}, times = 1) => {
    for (let n = 0; n < times; n += 1) {
      attempts.failed(code, { address, attempt, arrivedAt: clock.monotonic() })
    }
  }
  const mayContinue = (address = POD_ADDRESS) => attempts.mayContinue({ claims: CLAIMS, address })
  return { attempts, clock, recorded, fail, mayContinue }
}

test('every denial is charged, and of the faults those the caller brings about', async (t) => {
  const charged = Object.entries(CODES).filter(([, { kind }]) => kind === 'fault')
  t.strictSame(
    charged.filter(([, { isCharged }]) => isCharged).map(([code]) => code),
    [
      'source_address_unconfirmed',
      'displaced',
      'session_hosting_no_stream',
      'too_many_streams_of_pod',
      'keys_cooldown',
      'worker_gone',
    ],
  )
  for (const [code, { isCharged, kind }] of Object.entries(CODES) as [
    Code,
    (typeof CODES)[Code],
  ][]) {
    const { attempts, fail, recorded } = setUp()
    fail(code, '10.0.0.66', {}, BURST)
    // What unproven claims say of a pod is charged alike.
    const isPaid = isCharged || code === 'pod_unconfirmed'
    t.equal(attempts.mayStart('10.0.0.66'), !isPaid, code)
    if (kind === 'denial') t.equal(isCharged, true, code)
    t.equal(recorded.length, BURST, 'charged or not, it is recorded')
  }
})

test('what unproven claims say of a pod has one answer and one charge; the record has the code', async (t) => {
  const ofPod = ['pod_deleted', 'source_address_mismatch', 'pod_unconfirmed'] as const
  for (const code of ofPod) {
    const { attempts, recorded } = setUp()
    const failed = (attempt: AuthAttempt) =>
      attempts.failed(code, { address: '10.0.0.66', attempt, arrivedAt: 0 })
    t.equal(failed({ claimed: CLAIMS }), 'pod_unconfirmed')
    t.strictSame(recorded, [code])
    failed({ claimed: CLAIMS })
    failed({ claimed: CLAIMS })
    t.equal(attempts.mayStart('10.0.0.66'), false, code)
    t.equal(failed(SIGNED), code, 'a proven one is told')
  }
  const { attempts, fail } = setUp()
  const fault = new Fault('pod_unconfirmed', 'the API server is away')
  fail('pod_unconfirmed', '10.0.0.66', { claimed: CLAIMS, fault }, 2 * BURST)
  t.equal(attempts.mayStart('10.0.0.66'), true, 'an outage is not charged')
})

test('before a signature the address pays, after it the pod, which others may share an address with', async (t) => {
  const { attempts, fail, mayContinue } = setUp()
  fail('too_many_streams_of_pod', POD_ADDRESS, SIGNED, BURST)
  t.equal(mayContinue(), false)
  t.equal(attempts.mayStart(POD_ADDRESS), true)
  const neighbor = { podUid: 'another' } as Claims
  t.equal(attempts.mayContinue({ claims: neighbor, address: POD_ADDRESS }), true)
  fail('worker_gone', POD_ADDRESS, { claimed: CLAIMS }, BURST)
  t.equal(attempts.mayStart(POD_ADDRESS), false, 'unsigned claims do not count as a pod')
})

test('a token shown from another address is charged to that address, so that a thief cannot lock a pod out', async (t) => {
  const { attempts, fail, mayContinue } = setUp()
  fail('source_address_mismatch', '10.0.0.66', SIGNED, 2 * BURST)
  t.equal(attempts.mayStart('10.0.0.66'), false)
  t.equal(mayContinue(), true, 'the pod goes on')
  fail('worker_gone', POD_ADDRESS, SIGNED, BURST)
  t.equal(mayContinue('10.0.0.66'), true, 'nor does anyone else pay its penalty')
})

test('attempts that begin together are all charged, and the debt is bounded', async (t) => {
  const { attempts, clock, fail } = setUp()
  fail('worker_gone', '10.0.0.66', {}, 100)
  clock.advance(BURST * 1000 + 999)
  t.equal(attempts.mayStart('10.0.0.66'), false)
  clock.advance(1)
  t.equal(attempts.mayStart('10.0.0.66'), true)
  fail('rate_limited', '10.0.0.66', {}, 100)
  t.equal(attempts.mayStart('10.0.0.66'), true, 'being asked to wait makes no wait longer')
})

test('a pod that only comes and goes is charged; a pod whose stream ends for another reason is not', async (t) => {
  const { attempts, clock, mayContinue } = setUp()
  for (const code of ['gateway_gone', 'draining', 'pod_deleted', 'session_age_exceeded'] as const) {
    for (let n = 0; n < 2 * BURST; n += 1) attempts.ended(code, 0, CLAIMS)
  }
  for (let n = 0; n < 2 * BURST; n += 1) attempts.ended('completed', 1000, CLAIMS)
  t.equal(mayContinue(), true)
  for (const code of ['completed', 'worker_gone', 'displaced'] as const) {
    attempts.ended(code, 999, CLAIMS)
  }
  t.equal(mayContinue(), false)
  clock.advance(1000)
  t.equal(mayContinue(), true)
})

test('a peer that was gone before we looked is neither charged nor recorded', async (t) => {
  const { attempts, fail, recorded } = setUp()
  fail('handshake_timeout', '', {}, 2 * BURST)
  t.equal(attempts.mayStart(''), true)
  t.strictSame(recorded, [])
})

test('an IPv6 network has one budget, and so has each IPv4 address', async (t) => {
  const { attempts, fail } = setUp()
  for (let n = 0; n < BURST; n += 1) fail('token_expired', `2001:db8:1:2::${n}`)
  t.equal(attempts.mayStart('2001:db8:1:2:ffff::1'), false)
  t.equal(attempts.mayStart('2001:db8:1:3::1'), true)
  fail('token_expired', '10.0.0.1', {}, BURST)
  t.equal(attempts.mayStart('10.0.0.1'), false)
  t.equal(attempts.mayStart('10.0.0.2'), true)
})

test('a pod does not pay for other pods in its network, nor they for it', async (t) => {
  const { attempts, fail } = setUp()
  const [first = '', second = ''] = POD_ADDRESSES
  const stranger = '2001:db8:1:2::13'
  fail('token_expired', stranger, {}, BURST)
  t.equal(attempts.mayStart(stranger), false)
  t.equal(attempts.mayStart('2001:db8:1:2::14'), false, 'as any stranger of that network')
  t.strictSame(
    POD_ADDRESSES.map((address) => attempts.mayStart(address)),
    [true, true],
  )
  fail('token_expired', first, {}, BURST)
  t.equal(attempts.mayStart(first), false)
  t.equal(attempts.mayStart(second), true)
})

test('every spelling of an IPv6 address is in the same network', async (t) => {
  const groups = [
    ['10.0.0.1', '10.0.0.1'],
    ['::ffff:10.0.0.1', '::ffff:10.0.0.1'],
    ['::1', '::/64'],
    ['::', '::/64'],
    ['2001:db8::1', '2001:db8::/64'],
    ['2001:db8:0:0:1::', '2001:db8::/64'],
    ['2001:0DB8:0000:0000:ffff:0:0:1', '2001:db8::/64'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:0:1::', '2001:db8:0:1::/64'],
    ['1:2:3:4:5:6:7::', '1:2:3:4::/64'],
    ['::2:3:4:5:6:7:8', '0:2:3:4::/64'],
    ['1::4:5:6:192.0.2.1', '1:0:0:4::/64'],
    ['64:ff9b::192.0.2.1', '64:ff9b::/64'],
    ['fe80::1%eth0', 'fe80::/64'],
    ['', ''],
  ] as const
  for (const [address, group] of groups) t.equal(addressGroup(address), group, address)
})

type Ends = {
  readonly remoteAddress?: string
  readonly remotePort?: number
  readonly localAddress?: string
  readonly bytesRead?: number
}

const socketOf = (ends: Ends): Socket =>
  Object.assign(new EventEmitter(), {
    remoteAddress: '10.0.0.1',
    remotePort: 1000,
    localAddress: '10.0.0.9',
    localPort: 18_443,
    bytesRead: 0,
    ...ends,
  }) as unknown as Socket

const setUpPending = (perAddressMax = 2, inAllMax = 100, isSlowToClose = false) => {
  const clock = new FakeClock()
  const pending = new PendingSockets({
    perAddressMax,
    inAllMax,
    handshakeTimeoutMs: 5000,
    clock,
    groupOf,
  })
  const seen = { timeouts: 0, displaced: 0, left: 0 }
  const accept = (socket: Socket) =>
    pending.accept(socket, {
      onEnd(why) {
        if (why === 'timeout') seen.timeouts += 1
        else {
          seen.displaced += 1
          if (!isSlowToClose) socket.emit('close')
        }
      },
      onLeft: () => void (seen.left += 1),
    })
  return { accept, clock, pending, seen }
}

test('two connections with one peer address and port, to two of our addresses, are two', async (t) => {
  const { accept, clock, pending, seen } = setUpPending()
  const [first, second] = [socketOf({}), socketOf({ localAddress: '10.0.0.8' })]
  t.ok(accept(first))
  t.ok(accept(second))
  t.equal(pending.size, 2)
  t.notOk(accept(socketOf({ remotePort: 1001 })), 'both count')
  pending.settle(second)
  clock.advance(5000)
  t.equal(seen.timeouts, 1, 'and the first one still has its time')
  first.emit('close')
  t.strictSame([pending.size, pending.addressCount, clock.pending], [0, 0, 0])
})

test('the socket inside TLS is recognized by its ends as the accepted one', async (t) => {
  const { accept, clock, pending } = setUpPending()
  t.ok(accept(socketOf({})))
  pending.settle(socketOf({}))
  t.strictSame([pending.size, pending.addressCount, clock.pending], [0, 0, 0])
})

test('ends that come again before the older close is heard of are counted once', async (t) => {
  const { accept, clock, pending, seen } = setUpPending(1)
  let older = socketOf({ bytesRead: 1 })
  t.ok(accept(older))
  for (let n = 0; n < 31; n += 1) {
    const newer = socketOf({ bytesRead: 1 })
    t.ok(accept(newer), 'the address has its place')
    older.emit('close')
    older = newer
  }
  t.equal(pending.size, 1)
  t.equal(seen.left, 31, 'each that left is charged, once')
  older.emit('close')
  t.strictSame([pending.size, pending.addressCount, clock.pending], [0, 0, 0])
  t.ok(accept(socketOf({})), 'and nothing is left of it')
})

test('an IPv6 network has few pending sockets, whatever addresses it uses', async (t) => {
  const { accept, pending } = setUpPending(2)
  const sockets = [1, 2, 3].map((n) => socketOf({ remoteAddress: `2001:db8:1:2::${n}` }))
  t.strictSame(sockets.map(accept), [true, true, false])
  t.ok(accept(socketOf({ remoteAddress: '2001:db8:1:3::1' })))
  t.ok(accept(socketOf({ remoteAddress: '::ffff:10.0.0.1' })))
  t.ok(accept(socketOf({ remoteAddress: '::ffff:10.0.0.2' })))
  t.equal(pending.addressCount, 4)
})

test('each pod of an IPv6 network has its own limit of pending sockets', async (t) => {
  const { accept, pending } = setUpPending(1)
  const [first = '', second = ''] = POD_ADDRESSES
  const addresses = ['2001:db8:1:2::1', first, second, first]
  const sockets = addresses.map((remoteAddress, n) =>
    socketOf({ remoteAddress, remotePort: n + 1 }),
  )
  t.strictSame(sockets.map(accept), [true, true, true, false])
  for (const socket of sockets) socket.emit('close')
  t.strictSame([pending.size, pending.addressCount], [0, 0])
})

test('where all places are taken, an address with few sockets displaces the one with the most', async (t) => {
  const { accept, clock, pending, seen } = setUpPending(4, 8)
  const from = (remoteAddress: string, remotePort: number) =>
    socketOf({ remoteAddress, remotePort })
  const few = [1, 2, 3, 4].map((n) => from('10.0.0.1', n))
  const many = [1, 2, 3, 4].map((n) => from('10.0.0.2', n))
  for (const socket of [...few, ...many]) t.ok(accept(socket))
  pending.prove(few[0]!)
  t.ok(accept(from('10.0.0.3', 1)), 'a place is free')
  t.equal(seen.displaced, 0)
  t.ok(accept(from('10.0.0.4', 1)), 'no place is free')
  t.equal(seen.displaced, 1)
  pending.settle(many[0]!)
  t.equal(pending.size, 9, 'the oldest of the heaviest address is gone already')
  t.ok(accept(from('10.0.0.4', 2)))
  t.notOk(accept(from('10.0.0.4', 3)), 'not to have as many as the address it takes from')
  t.ok(accept(from('10.0.0.5', 1)), 'and another newcomer still can')
  t.equal(pending.size, 9, 'the proven one counts among the streams')
  clock.advance(5000)
  t.equal(seen.timeouts, 9)
})

test('a displaced socket counts until it is closed: for its address, and all of them together', async (t) => {
  const { accept, clock, pending, seen } = setUpPending(4, 8, true)
  const from = (address: number, remotePort: number) =>
    socketOf({ remoteAddress: `10.0.0.${address}`, remotePort })
  const heavy = [1, 2].flatMap((address) => [1, 2, 3, 4].map((port) => from(address, port)))
  for (const socket of heavy) t.ok(accept(socket))
  const newcomers = Array.from({ length: 8 }, (_, n) => from(10 + n, 1))
  const accepted = newcomers.filter(accept)
  t.strictSame([accepted.length, seen.displaced], [6, 6], 'until no address has two more')
  t.notOk(accept(from(1, 5)), 'its own displaced sockets keep its places')
  pending.prove(heavy[0]!)
  clock.advance(5000)
  pending.endAll()
  t.equal(seen.timeouts, 16, 'the eight that wait are told, and none that was displaced')
  for (const socket of [...heavy, ...accepted]) socket.emit('close')
  t.strictSame([pending.size, pending.addressCount, clock.pending], [0, 0, 0])
})

test('no more displaced sockets are on their way out than there are places', async (t) => {
  const { accept, pending, seen } = setUpPending(100, 6, true)
  for (let n = 0; n < 6; n += 1) t.ok(accept(socketOf({ remotePort: 2 + n })))
  const outcomes = Array.from({ length: 12 }, (_, n) => {
    const newcomer = socketOf({ remoteAddress: `10.0.1.${n}`, remotePort: 1 })
    const isAccepted = accept(newcomer)
    // The worker proves its token, and the address with the most takes the place again.
    pending.prove(newcomer)
    accept(socketOf({ remotePort: 100 + n }))
    return isAccepted
  })
  t.strictSame(outcomes, [...Array(6).fill(true), ...Array(6).fill(false)])
  t.equal(seen.displaced, 6)
})

test('nothing is left of ten thousand sockets, however they end', async (t) => {
  const { accept, clock, pending } = setUpPending(3, 100)
  const open: Socket[] = []
  for (let n = 0; n < 10_000; n += 1) {
    const socket = socketOf({ remoteAddress: `10.0.${(n >> 4) % 8}.1`, remotePort: n % 97 })
    if (!accept(socket)) {
      open.shift()?.emit('close')
      continue
    }
    if (n % 3 === 0) pending.prove(socket)
    if (n % 7 === 0) pending.settle(socket)
    else open.push(socket)
    if (pending.size > 100 || pending.addressCount > 8) t.fail('a bound was passed')
  }
  for (const socket of open) socket.emit('close')
  t.strictSame([pending.size, pending.addressCount, clock.pending], [0, 0, 0])
})

test('a peer that sent something and left unanswered is reported, and nobody else', async (t) => {
  const { accept, pending, seen } = setUpPending(10)
  const silent = socketOf({ remotePort: 1 })
  const answered = socketOf({ remotePort: 2, bytesRead: 10 })
  const admitted = socketOf({ remotePort: 3, bytesRead: 10 })
  const left = socketOf({ remotePort: 4, bytesRead: 10 })
  for (const socket of [silent, answered, admitted, left]) t.ok(accept(socket))
  pending.answer(answered)
  pending.settle(admitted)
  for (const socket of [silent, answered, admitted]) socket.emit('close')
  t.equal(seen.left, 0)
  left.emit('close')
  t.equal(seen.left, 1)
})
