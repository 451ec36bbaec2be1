/** A worker is admitted only by a verdict of the cluster, which is asked as rarely as possible. */

import { setImmediate as turn } from 'node:timers/promises'
import { test, type Test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import type { ApiFault } from '../kit/kube-faults.ts'
import { startRig, type Rig, type RigOptions } from '../kit/rig.ts'
import { withBadSignature } from '../kit/kube-tokens.ts'
import { runUntil } from '../kit/run-clock.ts'
import { nextMessage, type Connected, type Refused } from '../kit/worker-client.ts'

const LOOKUPS = 'openclaw_k8s_verdict_cache_lookups_total'

const start = async (t: Test, options: RigOptions = {}) => {
  const clock = new FakeClock()
  clock.advance(1)
  const rig = await startRig({ clock, ...options })
  t.teardown(() => rig.stop())
  const pod = rig.createPod()
  return { ...rig, clock, pod, token: rig.mint({ pod }) }
}

const codeOf = (outcome: Connected | Refused) =>
  outcome.ok ? 'ok' : (outcome.body as { error: { type: string } }).error.type

const lookups = async (rig: Pick<Rig, 'metrics'>) => {
  const all = await rig.metrics()
  return ['hit', 'miss', 'negative', 'shared'].reduce(
    (sum, outcome) => sum + (all.get(`${LOOKUPS}{outcome="${outcome}"}`) ?? 0),
    0,
  )
}

/** Checks again after a few turns of the event loop: nothing sleeps. */
const untilLookups = async (rig: Pick<Rig, 'metrics'>, atLeast: number) => {
  for (let n = 0; n < 1000; n += 1) {
    if ((await lookups(rig)) >= atLeast) return
    for (let turns = 0; turns < 50; turns += 1) await turn()
  }
  throw new Error(`there were no ${atLeast} lookups`)
}

test('a thousand connections at once with one token cost one TokenReview', async (t) => {
  const rig = await start(t, {
    set: ['limits.pendingPerAddress=2000', 'limits.pending=2000', 'limits.streamsPerPod=1024'],
  })
  const { api, token } = rig
  api.pauseReviews()
  const all = Array.from({ length: 1000 }, () => rig.connect({ token }))
  await api.reviewArrived()
  await untilLookups(rig, 1000)
  api.releaseReviews()
  const outcomes = await Promise.all(all)
  t.equal(outcomes.filter(({ ok }) => ok).length, 1000)
  t.equal(api.counts.tokenReviews, 1)
  for (const outcome of outcomes) if (outcome.ok) outcome.socket.terminate()
})

test('the first caller can leave while the review is held, and the second still gets in', async (t) => {
  const rig = await start(t, { set: ['limits.handshakeTimeout=2s', 'review.timeout=30s'] })
  const { api, token, clock } = rig
  api.pauseReviews()
  const first = rig.connect({ token })
  await api.reviewArrived()
  await clock.advanceAsync(1000)
  const second = rig.connect({ token })
  await untilLookups(rig, 2)
  await clock.advanceAsync(1000)
  t.equal(codeOf(await first), 'admission_timeout')
  api.releaseReviews()
  const outcome = await second
  t.equal(codeOf(outcome), 'ok')
  t.equal(api.counts.tokenReviews, 1)
  if (outcome.ok) outcome.socket.terminate()
})

test('in a storm each token is reviewed once, and a worker asked to come back finds its place kept', async (t) => {
  const rig = await start(t, {
    // One review per second: the last of six is due long after the first handshakes have ended.
    api: { paces: { tokenReviews: { ratePerSecond: 1, serviceMs: 100, waitMsMax: 1000 } } },
    set: ['review.concurrency=1', 'limits.handshakeTimeout=2s'],
  })
  const { api, clock } = rig
  const seen = { ok: 0, admission_timeout: 0 }
  const workers = Array.from({ length: 6 }, async (_, nth) => {
    const localAddress = `127.0.0.${20 + nth}`
    const token = rig.mint({ pod: rig.createPod(`worker-${nth}`, localAddress) })
    for (;;) {
      const outcome = await rig.connect({ token, localAddress })
      seen[codeOf(outcome) as keyof typeof seen] += 1
      if (outcome.ok) return outcome.socket.terminate()
    }
  })
  await runUntil(clock, Promise.all(workers))
  t.equal(api.counts.tokenReviews, 6)
  t.equal(seen.ok, 6)
  t.ok(seen.admission_timeout >= 4, 'some had to come back, and for no other reason')
  t.strictSame(Object.keys(seen), ['ok', 'admission_timeout'])
})

test('a good verdict is asked for again when it has expired', async (t) => {
  const rig = await start(t)
  const { api, token, clock } = rig
  const connect = async () => {
    const outcome = await rig.connect({ token })
    if (outcome.ok) outcome.socket.terminate()
    return codeOf(outcome)
  }
  t.equal(await connect(), 'ok')
  await clock.advanceAsync(5000)
  t.equal(await connect(), 'ok')
  t.equal(api.counts.tokenReviews, 1)
  await clock.advanceAsync(60_000)
  t.equal(await connect(), 'ok')
  t.equal(api.counts.tokenReviews, 2)
})

test('a token of a pod that was replaced under its name is refused, though the ServiceAccount is the same', async (t) => {
  const rig = await start(t)
  const { api, token } = rig
  const fresh = api.recreatePod('openclaw', 'worker-a')
  const refused = await rig.connect({ token })
  t.equal(refused.ok, false)
  t.ok(!refused.ok && [401, 403].includes(refused.status))
  t.equal(rig.gateway.handshakes.length, 0)
  const outcome = await rig.connect({ token: rig.mint({ pod: fresh }) })
  t.equal(codeOf(outcome), 'ok')
  if (outcome.ok) outcome.socket.terminate()
})

test('an answer for another audience or another identity refuses, after exactly one question', async (t) => {
  const rig = await start(t)
  const { api, clock } = rig
  const answers: readonly (readonly [string, string, ApiFault])[] = [
    ['no audiences', 'review_audience_mismatch', { kind: 'wrongAudience' }],
    ['empty audiences', 'review_audience_mismatch', { kind: 'wrongAudience', audiences: [] }],
    ['other audience', 'review_audience_mismatch', { kind: 'wrongAudience', audiences: ['x'] }],
    [
      'audience error',
      'review_rejected',
      {
        kind: 'rewriteReview',
        rewrite: (review) => ({
          ...review,
          status: {
            error:
              '[invalid bearer token, token audiences ["a"] is invalid for the target audiences ["b"]]',
          },
        }),
      },
    ],
    [
      'other ServiceAccount',
      'review_identity_mismatch',
      {
        kind: 'rewriteReview',
        rewrite: (review) => {
          review.status.user.username = 'system:serviceaccount:openclaw:admin'
          return review
        },
      },
    ],
    [
      'two pod-uids',
      'review_identity_mismatch',
      {
        kind: 'rewriteReview',
        rewrite: (review) => {
          const name = 'authentication.kubernetes.io/pod-uid'
          const { extra } = review.status.user
          extra[name] = [...(extra[name] as string[]), 'other']
          return review
        },
      },
    ],
  ]
  for (const [what, code, fault] of answers) {
    api.setFault('tokenReviews', fault)
    const before = api.counts.tokenReviews
    t.equal(codeOf(await rig.connect({ token: rig.mint({ pod: rig.pod }) })), code, what)
    t.equal(api.counts.tokenReviews - before, 1, what)
    await clock.advanceAsync(1000)
  }
  api.clearFaults()
  t.equal(rig.gateway.handshakes.length, 0)
})

test('a refusal of the cluster holds for 2 s and no longer', async (t) => {
  const rig = await start(t)
  const { api, token, clock } = rig
  api.setFault('tokenReviews', { kind: 'wrongAudience' }, { times: 1 })
  t.equal(codeOf(await rig.connect({ token })), 'review_audience_mismatch')
  await clock.advanceAsync(1000)
  t.equal(codeOf(await rig.connect({ token })), 'review_audience_mismatch')
  t.equal(api.counts.tokenReviews, 1)
  await clock.advanceAsync(1001)
  const outcome = await rig.connect({ token })
  t.equal(codeOf(outcome), 'ok')
  if (outcome.ok) outcome.socket.terminate()
})

test('rotated keys are picked up, and an unknown key is looked for once per cooldown', async (t) => {
  const rig = await start(t)
  const { api, clock, pod } = rig
  await api.rotateKeys({ keepOld: false })
  const token = rig.mint({ pod })
  const early = await rig.connect({ token })
  t.equal(codeOf(early), 'keys_cooldown')
  t.ok(!early.ok && early.status === 503 && early.headers['retry-after'] !== undefined)
  t.equal(api.counts.jwks, 1)
  await clock.advanceAsync(30_000)
  const outcome = await rig.connect({ token })
  t.equal(codeOf(outcome), 'ok')
  t.equal(api.counts.jwks, 2)
  if (outcome.ok) outcome.socket.terminate()

  const foreign = rig.mint({ pod, key: 'other' })
  t.equal(codeOf(await rig.connect({ token: foreign })), 'keys_cooldown')
  await clock.advanceAsync(30_000)
  const late = await rig.connect({ token: foreign })
  t.equal(codeOf(late), 'signing_key_unknown')
  t.ok(!late.ok && late.status === 401)
  t.equal(codeOf(await rig.connect({ token: foreign })), 'keys_cooldown')
  t.equal(api.counts.jwks, 3)
})

test('without keys the cluster is asked about a few tokens per address, and the rest wait', async (t) => {
  const rig = await start(t)
  const { api, clock, pod } = rig
  api.setFault('jwks', { kind: 'status', status: 500 })
  for (let passed = 0; passed < 620_000; passed += 10_000) await clock.advanceAsync(10_000)
  const token = rig.mint({ pod })
  const outcome = await rig.connect({ token })
  t.equal(codeOf(outcome), 'ok', 'a good worker still gets in')
  if (outcome.ok) outcome.socket.terminate()
  const before = api.counts.tokenReviews
  const codes: string[] = []
  for (let n = 0; n < 20; n += 1) {
    codes.push(codeOf(await rig.connect({ token: withBadSignature(token, n) })))
  }
  t.equal(codes.filter((code) => code === 'review_rejected').length, 4)
  t.equal(codes.filter((code) => code === 'keys_unavailable').length, 16)
  t.equal(api.counts.tokenReviews - before, 4)
})

/** The cluster's keys are unknown, so only a TokenReview can decide. */
const startWithoutKeys = async (t: Test, options: RigOptions = {}) => {
  const rig = await start(t, options)
  rig.api.setFault('jwks', { kind: 'status', status: 500 })
  for (let passed = 0; passed < 620_000; passed += 10_000) await rig.clock.advanceAsync(10_000)
  const token = rig.mint({ pod: rig.pod })
  /** Begins `count` admissions in the name of the pod, which wait for their TokenReviews. */
  const forge = async (count: number, localAddress: string) => {
    const before = await lookups(rig)
    const forged = Array.from({ length: count }, (_, n) =>
      rig.connect({ token: withBadSignature(token, n + 100 * before), localAddress }),
    )
    await untilLookups(rig, before + count)
    return forged
  }
  return { ...rig, token, forge }
}

test('without keys, forged tokens take no place from the pod they name or from any stream', async (t) => {
  const rig = await startWithoutKeys(t, {
    set: ['limits.streamsPerPod=2', 'limits.streams=2', 'review.timeout=30s'],
  })
  rig.api.pauseReviews()
  const forged = [...(await rig.forge(3, '127.0.0.66')), ...(await rig.forge(3, '127.0.0.67'))]
  t.equal((await rig.metrics()).get('openclaw_k8s_streams'), 0)
  const good = rig.connect({ token: rig.token })
  await untilLookups(rig, 7)
  rig.api.releaseReviews()
  const outcome = await good
  t.equal(codeOf(outcome), 'ok')
  t.strictSame(
    (await Promise.all(forged)).map(codeOf),
    forged.map(() => 'review_rejected'),
  )
  t.equal((await rig.metrics()).get('openclaw_k8s_streams'), 1, 'the proven one has a place')
  if (outcome.ok) outcome.socket.terminate()
})

test('without keys, the end of a pod ends the admissions in its name', async (t) => {
  const rig = await startWithoutKeys(t, { set: ['review.timeout=30s'] })
  rig.api.pauseReviews()
  const [waiting] = await rig.forge(1, '127.0.0.11')
  rig.api.deletePod('openclaw', 'worker-a')
  t.equal(waiting && codeOf(await waiting), 'pod_unconfirmed', 'a stranger is told no more')
  const ended = 'openclaw_k8s_auth_failures_total{kind="denial",code="pod_terminating"}'
  t.equal((await rig.metrics()).get(ended), 1)
  rig.api.releaseReviews()
})

test('without keys, a worker counts as pending until its TokenReview', async (t) => {
  const rig = await startWithoutKeys(t, { set: ['limits.pending=2', 'review.timeout=30s'] })
  rig.api.pauseReviews()
  rig.gateway.setBehavior('stall')
  const [waiting] = await rig.forge(1, '127.0.0.66')
  const good = rig.connect({ token: rig.token })
  await untilLookups(rig, 2)
  t.equal(codeOf(await rig.connect({ token: rig.token })), 'too_many_pending')
  rig.api.releaseReviews()
  t.equal(waiting && codeOf(await waiting), 'review_rejected')
  await rig.gateway.waitForHandshake(1)
  const [first, second] = await Promise.all([
    rig.forge(1, '127.0.0.67'),
    rig.forge(1, '127.0.0.68'),
  ])
  t.ok(first && second, 'the proven one, at the gateway by now, left its place')
  rig.gateway.setBehavior('accept')
  await rig.clock.advanceAsync(30_000)
  await Promise.all([good, ...first, ...second])
})

test('no token appears in the audit, the metrics or the answer, nor at the gateway', async (t) => {
  const rig = await start(t)
  const { clock, pod } = rig
  const tokens = [
    rig.token,
    rig.mint({ pod, audiences: ['other'] }),
    rig.mint({ pod, key: 'forged' }),
    rig.mint({ pod, expiresInS: -10 }),
    'garbage-that-is-no-token',
  ]
  const seen: string[] = []
  for (const token of tokens) {
    for (const carrier of ['bearer', 'header', 'cf', 'subprotocol'] as const) {
      const outcome = await rig.connect({ token, carrier })
      seen.push(JSON.stringify([outcome.headers, outcome.ok ? outcome.protocol : outcome.body]))
      if (!outcome.ok) continue
      outcome.socket.send('hello')
      await nextMessage(outcome.socket)
      outcome.socket.terminate()
    }
  }
  await clock.advanceAsync(2000)
  seen.push(JSON.stringify(rig.audit), JSON.stringify([...(await rig.metrics())]))
  seen.push(JSON.stringify(rig.gateway.handshakes))
  t.equal(rig.gateway.handshakes.length, 4)
  const text = seen.join('\n')
  for (const token of tokens) {
    const secret = token.split('.').at(-1) ?? token
    t.notOk(text.includes(secret), 'neither as it is')
    t.notOk(text.includes(Buffer.from(token).toString('base64url')), 'nor encoded')
  }
})
