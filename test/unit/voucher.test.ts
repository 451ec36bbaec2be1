/** A voucher stands for a token only on a proof: of the cluster, of its memory, or of a signature. */

import { test } from 'tap'
import { Voucher, type VoucherRules } from '@openclaw-k8s/auth-sidecar/authn/authenticator.ts'
import { denied, granted, type Verdict } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import type { Claims, Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const HOUR_MS = 3_600_000

const setUp = (rules: Partial<VoucherRules> = {}) => {
  const clock = new FakeClock(1_000_000)
  clock.advance(1)
  const claims: Claims = {
    issuer: 'issuer',
    audiences: ['openclaw-gateway'],
    issuedAt: 1000,
    notBefore: 1000,
    expiresAt: Math.ceil((clock.now() + HOUR_MS) / 1000),
    tokenId: 'jti',
    namespace: 'ns',
    serviceAccount: 'sa',
    serviceAccountUid: 's',
    podName: 'a',
    podUid: 'u',
    nodeName: 'node-1',
  }
  const identity: Identity = {
    namespace: 'ns',
    serviceAccount: 'sa',
    podName: 'a',
    podUid: 'u',
    nodeName: 'node-1',
    credentialId: 'jti',
    expiresAt: claims.expiresAt,
  }
  const world = { staleMs: 0, finds: 0 }
  let answer: () => Promise<Verdict<Identity>> | Verdict<Identity> = async () => granted(identity)
  const voucher = new Voucher({
    verdicts: {
      find: () => {
        world.finds += 1
        return answer()
      },
    },
    clock,
    rules: () => ({
      expiredTokenReconnectGraceMs: 0,
      onApiOutage: 'refuse',
      maxWatchStalenessMs: 300_000,
      ...rules,
    }),
    watchStaleMs: () => world.staleMs,
    entriesMax: 10,
  })
  const answers = (next: typeof answer) => void (answer = next)
  const expire = (afterMs = 0) => clock.advance(claims.expiresAt * 1000 - clock.now() + afterMs)
  return { clock, claims, identity, world, voucher, answers, expire }
}

const outage = () => Promise.reject(new Fault('review_unavailable', 'down'))

test('the cluster speaks first, and who spoke is known', async (t) => {
  const { voucher, claims, identity, answers } = setUp()
  t.strictSame(await voucher.vouch('t', claims, 'verified'), granted({ identity, by: 'review' }))
  answers(() => granted(identity))
  t.strictSame(await voucher.vouch('t', claims, 'unavailable'), granted({ identity, by: 'cache' }))
  answers(() => denied('review_rejected'))
  t.strictSame(await voucher.vouch('t', claims, 'verified'), denied('review_rejected'))
})

test('a local verdict needs to be chosen, a verified signature, an outage, and a watch not long lost', async (t) => {
  const local = { onApiOutage: 'verify-locally' } as const
  type Circumstances = {
    readonly signature?: 'verified' | 'unavailable'
    readonly staleMs?: number
    readonly fail?: () => Promise<Verdict<Identity>>
  }
  const vouch = async (
    rules: Partial<VoucherRules>,
    { signature = 'verified', staleMs = 0, fail = outage }: Circumstances = {},
  ) => {
    const { voucher, claims, world, answers } = setUp(rules)
    world.staleMs = staleMs
    answers(fail)
    return voucher.vouch('t', claims, signature).then(
      (verdict) => (verdict.ok ? verdict.value.by : verdict.code),
      (error: unknown) => (error instanceof Fault ? error.code : error),
    )
  }
  t.equal(await vouch(local), 'local')
  t.equal(await vouch(local, { staleMs: 300_000 }), 'local')
  t.equal(await vouch(local, { staleMs: 300_001 }), 'review_unavailable')
  t.equal(await vouch(local, { signature: 'unavailable' }), 'review_unavailable')
  t.equal(await vouch({ onApiOutage: 'refuse' }), 'review_unavailable')
  const refused = () => Promise.reject(new Fault('own_credential_refused', 'RBAC'))
  t.equal(await vouch(local, { fail: refused }), 'own_credential_refused')
  const bug = new Error('bug')
  t.equal(await vouch(local, { fail: () => Promise.reject(bug) }), bug)
  t.equal(await vouch(local, { fail: async () => denied('review_rejected') }), 'review_rejected')
})

test('a local verdict says what the review would have said', async (t) => {
  const { voucher, claims, identity, answers } = setUp({ onApiOutage: 'verify-locally' })
  answers(outage)
  t.strictSame(await voucher.vouch('t', claims, 'verified'), granted({ identity, by: 'local' }))
})

test('an expired token is told at once, without a question, unless it is remembered', async (t) => {
  const { voucher, claims, world, expire } = setUp()
  await voucher.vouch('t', claims, 'verified')
  expire()
  t.strictSame(await voucher.vouch('t', claims, 'verified'), denied('token_expired'))
  t.equal(world.finds, 1)
})

test('a remembered token counts for its grace, verified, for its own pod, and to the second', async (t) => {
  const grace = { expiredTokenReconnectGraceMs: 600_000 }
  const remember = async () => {
    const parts = setUp(grace)
    await parts.voucher.vouch('t', parts.claims, 'verified')
    parts.expire()
    return parts
  }
  const good = await remember()
  const { identity } = good
  const byMemory = granted({ identity, by: 'memory' })
  t.strictSame(await good.voucher.vouch('t', good.claims, 'verified'), byMemory)
  t.equal(good.world.finds, 1, 'without a question: the cluster would say no')
  t.strictSame(
    await good.voucher.vouch('t', good.claims, 'unavailable'),
    denied('token_expired'),
    'not without its signature',
  )
  for (const other of [{ tokenId: 'other' }, { tokenId: undefined }, { podUid: 'v' }]) {
    t.strictSame(
      await good.voucher.vouch('t', { ...good.claims, ...other }, 'verified'),
      denied('token_expired'),
    )
  }
  good.clock.advance(599_999)
  t.strictSame(await good.voucher.vouch('t', good.claims, 'verified'), byMemory)
  good.clock.advance(2)
  t.strictSame(await good.voucher.vouch('t', good.claims, 'verified'), denied('token_expired'))

  const gone = await remember()
  gone.voucher.forgetPod('another')
  t.strictSame(await gone.voucher.vouch('t', gone.claims, 'verified'), byMemory)
  gone.voucher.forgetPod('u')
  t.strictSame(await gone.voucher.vouch('t', gone.claims, 'verified'), denied('token_expired'))
})

test('only what the cluster has vouched for is remembered', async (t) => {
  const grace = { expiredTokenReconnectGraceMs: 600_000, onApiOutage: 'verify-locally' } as const
  const refused = setUp(grace)
  refused.answers(() => denied('review_rejected'))
  const local = setUp(grace)
  local.answers(outage)
  const unseen = setUp(grace)
  for (const parts of [refused, local]) await parts.voucher.vouch('t', parts.claims, 'verified')
  for (const { expire, voucher, claims } of [refused, local, unseen]) {
    expire()
    t.strictSame(await voucher.vouch('t', claims, 'verified'), denied('token_expired'))
  }
})

test('a local verdict stands only as long as the rules in force would give it', async (t) => {
  for (const by of ['review', 'cache', 'memory'] as const) {
    t.equal(setUp().voucher.isStanding(by), true, `${by} needs no outage rule`)
  }
  t.equal(setUp().voucher.isStanding('local'), false, 'a reload has switched it off')
  const { voucher, world } = setUp({ onApiOutage: 'verify-locally' })
  t.equal(voucher.isStanding('local'), true)
  world.staleMs = 300_001
  t.equal(voucher.isStanding('local'), false, 'the watch was lost for too long meanwhile')
})
