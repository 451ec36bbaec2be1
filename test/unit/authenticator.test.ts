/** A token is good only on a proof: of the cluster, of a cached verdict, or of a signature. */

import { test } from 'tap'
import {
  TokenAuthenticator,
  type AuthenticationRules,
} from '@openclaw-k8s/auth-sidecar/authn/authenticator.ts'
import { ReviewUndecided } from '@openclaw-k8s/auth-sidecar/authn/token-review.ts'
import { denied, granted, type Verdict } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import type { Claims, Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import type { WatchedPod } from '@openclaw-k8s/auth-sidecar/kube/pod.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const HOUR_MS = 3_600_000
const podOf = (uid: string) => ({ uid }) as WatchedPod

const setUp = (rules: Partial<AuthenticationRules> = {}) => {
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
  const world = { staleMs: 0, finds: 0, issuer: 'issuer' }
  let answer: () => Promise<Verdict<Identity>> | Verdict<Identity> = async () => granted(identity)
  const authenticator = new TokenAuthenticator({
    verdicts: {
      find: () => {
        world.finds += 1
        return answer()
      },
      invalidatePod: () => {},
    },
    clock,
    rules: () => ({
      expiredTokenReconnectGraceMs: 0,
      onApiOutage: 'refuse',
      maxWatchStalenessMs: 300_000,
      ...rules,
    }),
    watchStaleMs: () => world.staleMs,
    isIssuerKnown: ({ issuer }) => issuer === world.issuer,
    entriesMax: 10,
  })
  const answers = (next: typeof answer) => void (answer = next)
  const expire = (afterMs = 0) => clock.advance(claims.expiresAt * 1000 - clock.now() + afterMs)
  return { clock, claims, identity, world, authenticator, answers, expire }
}

const outage = () => Promise.reject(new Fault('review_unavailable', 'down'))

test('the cluster is asked first, and the source of a verdict is known', async (t) => {
  const { authenticator, claims, identity, answers } = setUp()
  t.strictSame(
    await authenticator.authenticate('t', claims, 'verified'),
    granted({ identity, source: 'review' }),
  )
  answers(() => granted(identity))
  t.strictSame(
    await authenticator.authenticate('t', claims, 'unavailable'),
    granted({ identity, source: 'cache' }),
  )
  answers(() => denied('review_rejected'))
  t.strictSame(await authenticator.authenticate('t', claims, 'verified'), denied('review_rejected'))
})

test('a local verdict needs the option, a verified signature, a known issuer, an outage and a watch lost only recently', async (t) => {
  const local = { onApiOutage: 'verify-locally' } as const
  type Circumstances = {
    readonly signature?: 'verified' | 'unavailable'
    readonly staleMs?: number
    readonly issuer?: string
    readonly fail?: () => Promise<Verdict<Identity>>
  }
  const authenticate = async (
    rules: Partial<AuthenticationRules>,
    { signature = 'verified', staleMs = 0, issuer = 'issuer', fail = outage }: Circumstances = {},
  ) => {
    const { authenticator, claims, world, answers } = setUp(rules)
    Object.assign(world, { staleMs, issuer })
    answers(fail)
    return authenticator.authenticate('t', claims, signature).then(
      (verdict) => (verdict.ok ? verdict.value.source : verdict.code),
      (error: unknown) => (error instanceof Fault ? error.code : error),
    )
  }
  t.equal(await authenticate(local), 'local')
  t.equal(await authenticate(local, { staleMs: 300_000 }), 'local')
  t.equal(await authenticate(local, { staleMs: 300_001 }), 'review_unavailable')
  t.equal(await authenticate(local, { signature: 'unavailable' }), 'review_unavailable')
  t.equal(await authenticate(local, { issuer: 'another' }), 'review_unavailable')
  t.equal(await authenticate({ onApiOutage: 'refuse' }), 'review_unavailable')
  const refused = () => Promise.reject(new Fault('own_credential_refused', 'RBAC'))
  t.equal(await authenticate(local, { fail: refused }), 'own_credential_refused')
  const bug = new Error('bug')
  t.equal(await authenticate(local, { fail: () => Promise.reject(bug) }), bug)
  t.equal(
    await authenticate(local, { fail: async () => denied('review_rejected') }),
    'review_rejected',
  )
})

test('a local verdict says what the review would have said', async (t) => {
  const { authenticator, claims, identity, answers } = setUp({ onApiOutage: 'verify-locally' })
  answers(outage)
  t.strictSame(
    await authenticator.authenticate('t', claims, 'verified'),
    granted({ identity, source: 'local' }),
  )
})

test('an expired token is refused at once, without a review, unless it is remembered', async (t) => {
  const { authenticator, claims, world, expire } = setUp()
  await authenticator.authenticate('t', claims, 'verified')
  expire()
  t.strictSame(await authenticator.authenticate('t', claims, 'verified'), denied('token_expired'))
  t.equal(world.finds, 1)
})

test('a remembered token counts for its grace, to the second, if it is verified and shown by its own pod', async (t) => {
  const grace = { expiredTokenReconnectGraceMs: 600_000 }
  const remember = async () => {
    const parts = setUp(grace)
    await parts.authenticator.authenticate('t', parts.claims, 'verified')
    parts.expire()
    return parts
  }
  const good = await remember()
  const { identity } = good
  const byMemory = granted({ identity, source: 'memory' })
  t.strictSame(await good.authenticator.authenticate('t', good.claims, 'verified'), byMemory)
  t.equal(good.world.finds, 1, 'without a question: the cluster would say no')
  t.strictSame(
    await good.authenticator.authenticate('t', good.claims, 'unavailable'),
    denied('token_expired'),
    'not without its signature',
  )
  for (const other of [{ tokenId: 'other' }, { tokenId: undefined }, { podUid: 'v' }]) {
    t.strictSame(
      await good.authenticator.authenticate('t', { ...good.claims, ...other }, 'verified'),
      denied('token_expired'),
    )
  }
  good.clock.advance(599_999)
  t.strictSame(await good.authenticator.authenticate('t', good.claims, 'verified'), byMemory)
  good.clock.advance(2)
  t.strictSame(
    await good.authenticator.authenticate('t', good.claims, 'verified'),
    denied('token_expired'),
  )

  const gone = await remember()
  gone.authenticator.podGone(podOf('another'))
  t.strictSame(await gone.authenticator.authenticate('t', gone.claims, 'verified'), byMemory)
  gone.authenticator.podGone(podOf('u'))
  t.strictSame(
    await gone.authenticator.authenticate('t', gone.claims, 'verified'),
    denied('token_expired'),
  )
})

test('a token that ends while it is looked at is as good as one that had ended before', async (t) => {
  const rules = { expiredTokenReconnectGraceMs: 600_000, onApiOutage: 'verify-locally' } as const
  const late = setUp(rules)
  const known = setUp(rules)
  await known.authenticator.authenticate('t', known.claims, 'verified')
  for (const { answers, identity, expire } of [late, known]) {
    answers(async () => {
      expire()
      return granted(identity)
    })
  }
  const authenticate = ({ authenticator, claims }: typeof late) =>
    authenticator.authenticate('t', claims, 'verified')
  t.strictSame(await authenticate(late), denied('token_expired'))
  t.strictSame(await authenticate(late), denied('token_expired'), 'nor was it remembered')
  t.strictSame(
    await authenticate(known),
    granted({ identity: known.identity, source: 'memory' }),
    'the cluster had said so before',
  )

  const away = setUp(rules)
  away.answers(() => {
    away.expire()
    return outage()
  })
  await t.rejects(
    authenticate(away),
    { code: 'review_unavailable' },
    'nor does our own check count',
  )
})

test('only a token that the cluster has authenticated is remembered', async (t) => {
  const grace = { expiredTokenReconnectGraceMs: 600_000, onApiOutage: 'verify-locally' } as const
  const refused = setUp(grace)
  refused.answers(() => denied('review_rejected'))
  const local = setUp(grace)
  local.answers(outage)
  const unseen = setUp(grace)
  for (const parts of [refused, local])
    await parts.authenticator.authenticate('t', parts.claims, 'verified')
  for (const { expire, authenticator, claims } of [refused, local, unseen]) {
    expire()
    t.strictSame(await authenticator.authenticate('t', claims, 'verified'), denied('token_expired'))
  }
})

test('a local check stands in for an API server that is away, not for one that could not decide', async (t) => {
  const { authenticator, answers, claims } = setUp({ onApiOutage: 'verify-locally' })
  answers(() => Promise.reject(new ReviewUndecided('review_unavailable', 'leader changed')))
  await t.rejects(authenticator.authenticate('t', claims, 'verified'), {
    code: 'review_unavailable',
  })
  answers(outage)
  t.match(await authenticator.authenticate('t', claims, 'verified'), { ok: true })
})

test('a local verdict stands only as long as the rules in force would give it', async (t) => {
  for (const by of ['review', 'cache', 'memory'] as const) {
    const { authenticator: any, claims } = setUp()
    t.equal(any.isStanding(by, claims), true, `${by} needs no outage rule`)
  }
  const strict = setUp()
  t.equal(
    strict.authenticator.isStanding('local', strict.claims),
    false,
    'a reload has switched it off',
  )
  const { authenticator, claims, world } = setUp({ onApiOutage: 'verify-locally' })
  t.equal(authenticator.isStanding('local', claims), true)
  world.staleMs = 300_001
  t.equal(
    authenticator.isStanding('local', claims),
    false,
    'the watch was lost for too long meanwhile',
  )
})
