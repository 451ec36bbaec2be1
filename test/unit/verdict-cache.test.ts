/** A verdict is remembered for as long as it may be believed, and asked for once. */

import { test } from 'tap'
import { VerdictCache } from '@openclaw-k8s/auth-sidecar/authn/verdict-cache.ts'
import { denied, granted, type Verdict } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import type { Claims, Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { FakeClock } from '../kit/fake-clock.ts'

type Answer = Verdict<Identity> | Promise<Verdict<Identity>>

const setUp = (options: { entriesMax?: number; ttlMs?: () => number } = {}) => {
  const clock = new FakeClock()
  // An entry of time 0 would look to the LRU like one without a time.
  clock.advance(1)
  const outcomes: string[] = []
  const asked: string[] = []
  let answer: (token: string) => Answer = (token) => granted(identityOf(token))
  const cache = new VerdictCache({
    audiences: ['openclaw-gateway'],
    ttlMs: options.ttlMs ?? (() => 60_000),
    negativeTtlMs: 2000,
    entriesMax: options.entriesMax ?? 100,
    clock,
    onOutcome: (outcome) => void outcomes.push(outcome),
    review: async (token) => {
      asked.push(token)
      return answer(token)
    },
  })
  const identityOf = (podUid: string, lifeMs = 3_600_000): Identity => ({
    namespace: 'openclaw',
    serviceAccount: 'openclaw-worker',
    podName: `pod-${podUid}`,
    podUid,
    nodeName: undefined,
    credentialId: undefined,
    expiresAt: (clock.now() + lifeMs) / 1000,
  })
  /** By default the token is the uid of its pod. */
  const find = async (token: string, podUid = token) =>
    cache.find(token, { podUid } as unknown as Claims)
  return {
    cache,
    clock,
    outcomes,
    asked,
    find,
    identityOf,
    answerWith: (next: typeof answer) => {
      answer = next
    },
  }
}

test('a good verdict is asked for once and holds to its TTL, not longer', async (t) => {
  const { find, clock, outcomes, asked } = setUp()
  const first = await find('a')
  t.equal(first.ok, true)
  clock.advance(59_999)
  t.equal(await find('a'), first)
  t.equal(asked.length, 1)
  clock.advance(1)
  await find('a')
  t.equal(asked.length, 2)
  t.strictSame(outcomes, ['miss', 'hit', 'miss'])
})

test('a verdict whose time is over does not count as one', async (t) => {
  const { find, cache, clock } = setUp()
  await find('a')
  clock.advance(30_000)
  await find('b')
  t.equal(cache.size, 2)
  clock.advance(30_001)
  t.equal(cache.size, 1)
})

test('a verdict does not outlive its token', async (t) => {
  const { find, clock, asked, answerWith, identityOf } = setUp()
  answerWith((token) => granted(identityOf(token, 5000)))
  await find('a')
  clock.advance(5000)
  await find('a')
  t.equal(asked.length, 1)
  clock.advance(1)
  await find('a')
  t.equal(asked.length, 2)
})

test('the verdict on a token that expires meanwhile is returned but not kept', async (t) => {
  const { find, cache, asked, answerWith, identityOf } = setUp()
  answerWith((token) => granted(identityOf(token, 0)))
  t.equal((await find('a')).ok, true)
  await find('a')
  t.equal(asked.length, 2)
  t.equal(cache.size, 0)
})

test('a shorter TTL applies at once to verdicts already kept', async (t) => {
  let ttl = 60_000
  const { find, clock, asked } = setUp({ ttlMs: () => ttl })
  await find('a')
  clock.advance(10_000)
  await find('a')
  t.equal(asked.length, 1)
  ttl = 10_000
  await find('a')
  t.equal(asked.length, 2)
})

test('a bad verdict holds for 2 s, so that it does not prolong an outage', async (t) => {
  const { find, clock, asked, answerWith, outcomes } = setUp()
  answerWith(() => denied('review_rejected'))
  t.strictSame(await find('a'), { ok: false, code: 'review_rejected' })
  clock.advance(2000)
  await find('a')
  t.equal(asked.length, 1)
  clock.advance(1)
  await find('a')
  t.equal(asked.length, 2)
  t.strictSame(outcomes, ['miss', 'negative', 'miss'])
})

test('a fault reaches all waiting callers, and is never kept', async (t) => {
  const { find, asked, answerWith, identityOf } = setUp()
  answerWith(() => Promise.reject(new Fault('review_unavailable', 'down')))
  const both = await Promise.allSettled([find('a'), find('a')])
  t.strictSame(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  t.equal(asked.length, 1)
  answerWith((token) => granted(identityOf(token)))
  t.equal((await find('a')).ok, true)
  t.equal(asked.length, 2)
})

test('a thousand callers at once share one review, and none of them owns it', async (t) => {
  const { find, asked, answerWith, identityOf, outcomes } = setUp()
  const held = Promise.withResolvers<Verdict<Identity>>()
  answerWith(() => held.promise)
  const all = Array.from({ length: 1000 }, () => find('a'))
  held.resolve(granted(identityOf('a')))
  const verdicts = await Promise.all(all)
  t.equal(
    verdicts.every(({ ok }) => ok),
    true,
  )
  t.equal(asked.length, 1)
  t.equal(outcomes.filter((outcome) => outcome === 'shared').length, 999)
})

test('a flood of bad tokens evicts no good verdict', async (t) => {
  const { find, cache, asked, answerWith, identityOf } = setUp({ entriesMax: 10 })
  for (let n = 0; n < 10; n += 1) await find(`good-${n}`)
  answerWith(() => denied('review_rejected'))
  for (let n = 0; n < 1000; n += 1) await find(`bad-${n}`)
  answerWith((token) => granted(identityOf(token)))
  asked.length = 0
  for (let n = 0; n < 10; n += 1) await find(`good-${n}`)
  t.strictSame(asked, [])
  t.equal(cache.size, 10)
})

test('the least recently used verdict is dropped when there are too many', async (t) => {
  const { find, cache, asked } = setUp({ entriesMax: 2 })
  for (const token of ['a', 'b', 'a', 'c']) await find(token)
  t.equal(cache.size, 2)
  asked.length = 0
  for (const token of ['a', 'c']) await find(token)
  t.strictSame(asked, [])
  await find('b')
  t.strictSame(asked, ['b'])
})

test('an invalidated pod loses all its verdicts, and no other pod does', async (t) => {
  const { find, cache, asked, answerWith, identityOf } = setUp()
  answerWith((token) => granted(identityOf(token.slice(0, 5))))
  for (const token of ['pod-1.x', 'pod-1.y', 'pod-2.x']) await find(token, token.slice(0, 5))
  cache.invalidatePod('pod-1')
  t.equal(cache.size, 1)
  asked.length = 0
  for (const token of ['pod-1.x', 'pod-1.y', 'pod-2.x']) await find(token, token.slice(0, 5))
  t.strictSame(asked, ['pod-1.x', 'pod-1.y'])
})

test('a review that ends after its pod was invalidated is discarded', async (t) => {
  const { find, cache, answerWith, identityOf, asked } = setUp()
  const held = Promise.withResolvers<Verdict<Identity>>()
  answerWith(() => held.promise)
  const early = find('a')
  await Promise.resolve()
  cache.invalidatePod('a')
  answerWith((token) => granted(identityOf(token)))
  const late = await find('a')
  t.equal(late.ok, true, 'a caller after the invalidation gets a new review')
  held.resolve(granted(identityOf('a')))
  await t.rejects(early, { code: 'pod_unconfirmed' }, 'nobody said no')
  t.equal(asked.length, 2)
  await find('a')
  t.equal(asked.length, 2, 'the newer verdict is the one that is kept')
})

test('a verdict belongs to one token and one list of audiences', async (t) => {
  const { find, asked } = setUp()
  await find('a', 'pod')
  await find('b', 'pod')
  t.strictSame(asked, ['a', 'b'])
})
