/** The simulation itself: that a seed repeats, that a day is lived, and that a broken promise shows. */

import { test } from 'tap'
import { playDay } from '../sim/day.ts'
import { drawSchedule, type Schedule, type Speech } from '../sim/schedule.ts'
import { serializeCrypto } from '../sim/settle.ts'
import { shrink } from '../sim/shrink.ts'
import { Oracle } from '../sim/oracle.ts'
import { Truth } from '../sim/truth.ts'

serializeCrypto()

/** A morning: the first events of a day, with few pods. */
const morningOf = (seed: number, speech: Speech = 'stream'): Schedule => {
  const { events, meanMs } = drawSchedule(seed)
  return { speech, pods: 4, expiredTokenGraceS: 0, meanMs, events: events.slice(0, 25) }
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

test('every protocol is lived', async (t) => {
  for (const speech of ['stream-in-band', 'openclaw', 'openclaw-older'] as const) {
    const { violation, admitted } = await playDay(8, morningOf(8, speech))
    t.equal(violation, undefined, speech)
    t.ok(admitted > 0, speech)
  }
})

/** Days that the oracle, or the stand-in API server, once judged wrongly. */
const MISJUDGED = {
  'a worker whose gateway has left is closed a moment later, and has lost no message': 1655,
  'the API server may know the token of a pod that is gone for a while longer': 2071,
  'a line of a watch whose connection is gone tells the sidecar nothing': 3212,
}
for (const [promise, seed] of Object.entries(MISJUDGED)) {
  test(promise, async (t) => {
    const { violation } = await playDay(seed, drawSchedule(seed))
    t.equal(violation, undefined)
  })
}

test('another seed draws another day', async (t) => {
  t.not(JSON.stringify(drawSchedule(1)), JSON.stringify(drawSchedule(2)))
  t.same(drawSchedule(1), drawSchedule(1))
})

const TOKEN_MS = 600_000

const tokenOf = (jti: string) =>
  ['{}', JSON.stringify({ jti, iat: 0, exp: TOKEN_MS / 1000 }), 's'.repeat(64)]
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.')

const judge = ({ isReviewed = true, expiredTokenGraceMs = 0 } = {}) => {
  const truth = new Truth()
  let nowMs = 1000
  truth.allow(0, { accounts: ['worker-red'], commands: [] })
  const oracle = new Oracle({ truth, now: () => nowMs, wall: () => nowMs, expiredTokenGraceMs })
  truth.pods.set('uid', {
    name: 'worker-1',
    uid: 'uid',
    account: 'worker-red',
    addresses: [{ address: '10.1.0.1', untilMs: Infinity }],
  })
  oracle.minted(tokenOf('id'), 'account-uid')
  if (isReviewed) oracle.reviewed(tokenOf('id'))
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
  unlisted.truth.allow(500, { accounts: [], commands: [] })
  unlisted.admit()
  t.match(unlisted.oracle.violation, 'is not allowed')
})

test('the oracle finds a token that has expired, and one that nobody has reviewed', async (t) => {
  const expired = judge()
  expired.passTime(TOKEN_MS)
  expired.oracle.reviewed(tokenOf('id'))
  expired.admit()
  t.match(expired.oracle.violation, 'has expired')

  const unreviewed = judge({ isReviewed: false })
  unreviewed.admit()
  t.match(unreviewed.oracle.violation, 'never reviewed')
})

test('the oracle believes an expired token only within its grace, and after a review before', async (t) => {
  const known = judge({ expiredTokenGraceMs: 60_000 })
  known.passTime(TOKEN_MS)
  known.admit()
  t.equal(known.oracle.violation, undefined)
  known.passTime(60_000)
  known.admit()
  t.match(known.oracle.violation, 'has expired')

  const late = judge({ isReviewed: false, expiredTokenGraceMs: 60_000 })
  late.passTime(TOKEN_MS)
  late.oracle.reviewed(tokenOf('id'))
  late.admit()
  t.match(late.oracle.violation, 'first reviewed when it had expired')
})

test('the oracle finds a refusal for good of a worker that is entitled', async (t) => {
  const attempt = { token: tokenOf('id'), address: '10.1.0.1', podUid: 'uid', crime: undefined }
  const refuse = ({ oracle, passTime }: ReturnType<typeof judge>, code: string) => {
    passTime(60_000)
    oracle.refused(oracle.began(attempt), code)
    return oracle.violation
  }
  t.equal(refuse(judge(), 'review_unavailable'), undefined)
  t.match(refuse(judge(), 'review_rejected'), 'is entitled, and was refused')

  const lied = judge()
  const heal = lied.truth.trouble('reviews', () => 50_000)
  t.equal(refuse(lied, 'review_rejected'), undefined)
  heal()
  t.match(refuse(lied, 'review_rejected'), 'is entitled, and was refused')

  const rotated = judge()
  rotated.oracle.voidTokens()
  t.equal(refuse(rotated, 'signature_invalid'), undefined)
})

test('the oracle knows that a list, or a namesake, tells of who is gone', async (t) => {
  const list = { kind: 'Pod', account: 'worker-red', uids: new Set<string>(), decidedMs: 2000 }
  const listed = judge()
  listed.admit()
  listed.oracle.toldList(list)
  t.equal(listed.truth.pods.get('uid')?.toldGoneAt, undefined, 'who lives is not told to be gone')
  Object.assign(listed.truth.pods.get('uid') ?? {}, { goneAt: 1500 })
  listed.oracle.toldList({ ...list, account: 'worker-blue' })
  listed.oracle.toldList({ ...list, decidedMs: 1499 })
  t.equal(listed.truth.pods.get('uid')?.toldGoneAt, undefined)
  listed.oracle.toldList(list)
  t.equal(listed.truth.pods.get('uid')?.toldGoneAt, 1000)

  const { oracle, truth } = judge()
  truth.accountGone('old', 'worker-red', 900)
  const told = { isGone: false, isTerminating: false, addresses: [], kind: 'ServiceAccount' }
  oracle.told({ ...told, uid: 'other', name: 'worker-blue' })
  t.notOk(truth.accountsTold.has('old'))
  oracle.told({ ...told, uid: 'new', name: 'worker-red' })
  t.ok(truth.accountsTold.has('old'))
})

test('the oracle takes a late line about a pod for no word about the next one of its name', async (t) => {
  const { oracle, truth } = judge()
  const next = { name: 'worker-1', account: 'worker-red', addresses: [] }
  const first = truth.pods.get('uid')
  if (first === undefined) throw new Error('no pod')
  first.goneAt = 500
  truth.pods.set('next', { ...next, uid: 'next', goneAt: 900 })
  const told = { kind: 'Pod', name: 'worker-1', isTerminating: true, addresses: [] }
  oracle.told({ ...told, uid: 'uid', isGone: true })
  t.equal(truth.pods.get('next')?.toldGoneAt, undefined)
  oracle.told({ ...told, uid: 'next', isGone: true })
  t.equal(truth.pods.get('next')?.toldGoneAt, 1000)
})

test('the oracle gives no time for what the sidecar was told', async (t) => {
  const { oracle, truth, admit, passTime } = judge()
  truth.trouble('api', () => 0)
  const told = {
    uid: 'uid',
    kind: 'Pod',
    name: 'worker-1',
    isTerminating: false,
    addresses: ['10.1.0.1'],
  }
  oracle.told({ ...told, isGone: false })
  passTime(1)
  admit()
  t.equal(oracle.violation, undefined)
  oracle.told({ ...told, isGone: true })
  passTime(1)
  admit()
  t.match(oracle.violation, 'as the sidecar was told')
})

test('the oracle finds a message that is lost, and words that a worker must not hear', async (t) => {
  const lost = judge()
  const attempt = lost.oracle.began({
    token: tokenOf('id'),
    address: '10.1.0.1',
    podUid: 'uid',
    crime: undefined,
  })
  lost.oracle.waitedInVain({ ...attempt, openedAt: 1000 })
  t.match(lost.oracle.violation, 'its message is lost')

  const { oracle } = judge()
  oracle.toldWorker('pod_deleted')
  t.equal(oracle.violation, undefined)
  oracle.toldWorker('[invalid bearer token, etcdserver: request timed out]')
  t.match(oracle.violation, 'a worker was told')
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

test('the oracle finds an admission on an old word of a silent watch, however slow the gateway is', async (t) => {
  const { oracle, truth, admit, passTime } = judge()
  for (const place of ['watches', 'gateway'] as const) truth.trouble(place, () => 1000)
  Object.assign(truth.pods.get('uid') ?? {}, { goneAt: 1000 })
  passTime(3000)
  admit()
  t.equal(oracle.violation, undefined, 'a word is believed for two seconds')
  passTime(1000)
  admit()
  t.match(oracle.violation, 'after its pod or account went')
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
