/** The allow-list admits the identities it names, in the roles it names, and token buckets keep their bounds. */

import { test } from 'tap'
import { createPolicy } from '@openclaw-k8s/auth-sidecar/authz/policy.ts'
import type { Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { TokenBuckets } from '@openclaw-k8s/auth-sidecar/lib/token-buckets.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const entry = (
  namespace: string,
  serviceAccount: string,
  allowedRoles = ['node'],
  allowedCommands = ['*'],
) => ({ namespace, serviceAccount, allowedRoles, allowedCommands })

const identity = (namespace: string, serviceAccount: string): Identity => ({
  namespace,
  serviceAccount,
  podName: 'p',
  podUid: 'u',
  nodeName: undefined,
  credentialId: undefined,
  expiresAt: 0,
})

test('an empty list allows nobody', async (t) => {
  const policy = createPolicy([])
  t.equal(policy.isListed('openclaw', 'worker'), false)
  t.strictSame(policy.authorize(identity('openclaw', 'worker'), 'node'), {
    ok: false,
    code: 'identity_not_allowed',
  })
})

test('names are exact unless they are globs, and a glob matches only what it says', async (t) => {
  const cases: readonly (readonly [string, string, boolean])[] = [
    ['team', 'team', true],
    ['team', 'team-a', false],
    ['team', 'a-team', false],
    ['team-*', 'team-a', true],
    ['team-*', 'team-', true],
    ['team-*', 'xteam-a', false],
    ['*', 'anything', true],
    ['t??m', 'team', true],
    ['t??m', 'tem', false],
    ['a.b', 'axb', false],
    ['a.b*', 'axb', false],
    ['a.*', 'a.b', true],
    ['(a|b)*', 'a', false],
    ['[a]*', 'a', false],
    ['**a**', 'bab', true],
  ]
  for (const [pattern, name, expected] of cases) {
    t.equal(createPolicy([entry(pattern, 'sa')]).isListed(name, 'sa'), expected, pattern + name)
    t.equal(createPolicy([entry('ns', pattern)]).isListed('ns', name), expected, pattern + name)
  }
  t.equal(createPolicy([entry('a', 'b'), entry('c', 'd')]).isListed('a', 'd'), false, 'no mixing')
})

test('the role is the one asked for, or the only one there is', async (t) => {
  const one = createPolicy([entry('ns', 'sa')])
  const two = createPolicy([entry('ns', 'sa', ['node', 'browser'])])
  const who = identity('ns', 'sa')
  const node = {
    ok: true,
    value: { role: 'node', allowedCommands: ['*'], isHostingAllowed: false },
  }
  t.strictSame(one.authorize(who, undefined), node)
  t.strictSame(one.authorize(who, 'node'), node)
  t.strictSame(one.authorize(who, 'operator'), { ok: false, code: 'role_not_allowed' })
  t.strictSame(one.authorize(who, ''), { ok: false, code: 'role_not_allowed' })
  t.strictSame(two.authorize(who, undefined), { ok: false, code: 'role_missing' })
  t.strictSame(two.authorize(who, 'node'), node)
})

test('while trust is switched off the list is still read, and allows nobody', async (t) => {
  const off = createPolicy([entry('ns', 'sa')], false)
  t.equal(off.isListed('ns', 'sa'), true)
  for (const role of ['node', undefined, 'operator']) {
    t.strictSame(off.authorize(identity('ns', 'sa'), role), { ok: false, code: 'trust_disabled' })
  }
})

test('the commands are those of the entry that allows the role', async (t) => {
  const policy = createPolicy([
    entry('ns', '*', ['node'], ['camera.*']),
    entry('ns', 'sa', ['browser'], ['browser.open']),
  ])
  t.match(policy.authorize(identity('ns', 'sa'), 'browser'), {
    value: { allowedCommands: ['browser.open'] },
  })
  t.match(policy.authorize(identity('ns', 'sa'), 'node'), {
    value: { allowedCommands: ['camera.*'] },
  })
  t.strictSame(policy.authorize(identity('ns', 'other'), 'browser'), {
    ok: false,
    code: 'role_not_allowed',
  })
})

test('a bucket grants its burst, then its rate, and never more than its burst', async (t) => {
  const clock = new FakeClock()
  const buckets = new TokenBuckets({ ratePerSecond: 2, burst: 3, clock })
  const drain = () => {
    let taken = 0
    while (buckets.take('a')) taken += 1
    return taken
  }
  t.equal(drain(), 3)
  t.equal(buckets.has('a'), false)
  t.equal(buckets.has('b'), true, 'another key has its own')
  clock.advance(499)
  t.equal(drain(), 0)
  clock.advance(1)
  t.equal(buckets.has('a'), true)
  t.equal(drain(), 1)
  clock.advance(3_600_000)
  t.equal(drain(), 3)
})

test('a charge can go into debt, up to one burst', async (t) => {
  const clock = new FakeClock()
  const buckets = new TokenBuckets({ ratePerSecond: 1, burst: 2, clock })
  for (let n = 0; n < 3; n += 1) buckets.charge('a')
  clock.advance(1000)
  t.equal(buckets.has('a'), false, 'the third one is paid first')
  clock.advance(1000)
  t.equal(buckets.has('a'), true)
  for (let n = 0; n < 1000; n += 1) buckets.charge('a')
  clock.advance(2999)
  t.equal(buckets.has('a'), false)
  clock.advance(1)
  t.equal(buckets.has('a'), true)
})

test('a rate of 0 means no limit', async (t) => {
  const buckets = new TokenBuckets({ ratePerSecond: 0, burst: 0, clock: new FakeClock() })
  buckets.charge('a')
  t.equal(buckets.take('a') && buckets.has('a'), true)
})

test('a bounded number of keys is remembered, the busiest ones first', async (t) => {
  const clock = new FakeClock()
  const buckets = new TokenBuckets({ ratePerSecond: 1, burst: 1, keysMax: 2, clock })
  t.equal(buckets.take('busy'), true)
  for (let n = 0; n < 100; n += 1) {
    buckets.take(`other-${n}`)
    t.equal(buckets.take('busy'), false)
  }
  t.equal(buckets.take('other-0'), true, 'a forgotten key starts again')
})
