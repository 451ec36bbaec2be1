/** A flood of bad tokens costs the cluster and the good workers nothing, and the disk almost nothing. */

import { test } from 'tap'
import { createPrecheck } from '@openclaw-k8s/auth-sidecar/authn/precheck.ts'
import { VerdictCache } from '@openclaw-k8s/auth-sidecar/authn/verdict-cache.ts'
import { denied, granted } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Jwks } from '@openclaw-k8s/auth-sidecar/kube/jwks.ts'
import { TokenBuckets } from '@openclaw-k8s/auth-sidecar/lib/token-buckets.ts'
import { BAD_TOKENS, badToken, badTokenClasses } from '../kit/bad-tokens.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { KubeStore } from '../kit/kube-store.ts'
import { KeyRing, mintToken, publicJwk } from '../kit/kube-tokens.ts'
import { createWorkloads } from '../kit/kube-workloads.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig } from '../kit/rig.ts'

const PER_CLASS = 1000
const ISSUER = 'https://issuer.example'

const startLine = async () => {
  const clock = new FakeClock()
  clock.advance(1)
  const store = new KubeStore()
  const keys = await KeyRing.create(['RS256', 'ES256'])
  const pod = createWorkloads(store, clock.now).createPod({
    namespace: 'openclaw',
    name: 'worker-a',
    serviceAccount: 'openclaw-worker',
  })
  const counts = { fetches: 0, reviews: 0 }
  const jwks = new Jwks({
    client: {
      request: async ({ path }) => {
        if (!path.includes('openid-configuration')) counts.fetches += 1
        const body = path.includes('openid-configuration')
          ? { issuer: ISSUER }
          : { keys: keys.accepted.map(publicJwk) }
        return { status: 200, body }
      },
    },
    clock,
    random: () => 0,
    isIssuerConfigured: false,
    onIssuerAsked() {},
    onIssuerChanged() {},
    onReviewOnly: () => {},
    cooldownMs: 30_000,
    refreshMs: 300_000,
    staleAfterMs: 600_000,
    deadlineMs: 5000,
    onFetched: () => {},
    onFailed: () => {},
  })
  const budget = new TokenBuckets({ ratePerSecond: 1, burst: 5, clock })
  const precheck = createPrecheck({
    rules: () => ({
      issuers: () => (jwks.issuer === undefined ? undefined : [jwks.issuer]),
      audiences: ['openclaw-gateway'],
      maxTokenLifetimeMs: 90_000_000,
      isListed: () => true,
    }),
    keys: jwks,
    clock,
    unverifiedBudget: { perAddress: budget, inAll: budget, seen: budget },
    findUnseen: async () => undefined,
  })
  const verdicts = new VerdictCache({
    audiences: ['openclaw-gateway'],
    ttlMs: () => 60_000,
    negativeTtlMs: 2000,
    entriesMax: 1,
    clock,
    onOutcome: () => {},
    review: async (_token, claims) => {
      counts.reviews += 1
      const { namespace, serviceAccount, podName, podUid, expiresAt } = claims
      const more = { nodeName: undefined, credentialId: undefined }
      return granted({ namespace, serviceAccount, podName, podUid, expiresAt, ...more })
    },
  })
  const admit = async (token: string) => {
    const claims = precheck.read(token)
    if (!claims.ok) return claims
    const signature = await precheck.verify(token, '10.0.0.1')
    if (!signature.ok) return denied(signature.code)
    return verdicts.find(token, claims.value)
  }
  const issuing = { issuer: ISSUER, keys, store, nowMs: clock.now, nodeUid: () => 'node' }
  const mint = (key: 'good' | 'other' = 'good') => mintToken(issuing, { pod, key })
  await jwks.load()
  return { admit, clock, counts, mint, verdicts }
}

test('five thousand distinct bad tokens reach neither the API server nor the cache', async (t) => {
  const { admit, counts, mint, verdicts } = await startLine()
  const good = mint()
  t.equal((await admit(good)).ok, true)
  const codes = new Map<string, number>()
  for (let n = 0; n < PER_CLASS; n += 1) {
    for (const kind of badTokenClasses) {
      const verdict = await admit(badToken(kind, n, good))
      const code = verdict.ok ? 'ok' : verdict.code
      codes.set(code, (codes.get(code) ?? 0) + 1)
    }
  }
  t.strictSame(
    codes,
    new Map(badTokenClasses.map((kind) => [BAD_TOKENS[kind] as string, PER_CLASS] as const)),
  )
  t.equal((await admit(good)).ok, true)
  t.equal(verdicts.size, 1)
  t.strictSame(counts, { fetches: 1, reviews: 1 })
})

test('tokens of unknown keys cost one fetch of the keys per cooldown', async (t) => {
  const { admit, clock, counts, mint } = await startLine()
  const token = mint('other')
  const rounds = 10
  for (let round = 0; round < rounds; round += 1) {
    await clock.advanceAsync(30_000)
    const verdicts = await Promise.all(Array.from({ length: 50 }, () => admit(token)))
    t.equal(verdicts.filter((verdict) => verdict.ok).length, 0)
  }
  t.strictSame(counts, { fetches: 1 + rounds, reviews: 0 })
})

test('over sockets the refusals add up, code by code, in metrics and audit', async (t) => {
  const clock = new FakeClock()
  clock.advance(1)
  const set = ['limits.failuresPerAddress=0', `kubernetes.issuers=[${ISSUER}]`]
  const rig = await startRig({ clock, api: { issuer: ISSUER }, set })
  t.teardown(() => rig.stop())
  const good = rig.mint({ pod: rig.createPod() })
  const enter = async () => {
    const outcome = await rig.connect({ token: good })
    if (outcome.ok) outcome.socket.terminate()
    return outcome.ok
  }
  t.equal(await enter(), true)
  const perClass = 60
  const tokens = badTokenClasses.flatMap((kind) =>
    Array.from({ length: perClass }, (_, n) => badToken(kind, n, good)),
  )
  const statuses: number[] = []
  const work = async () => {
    for (let token = tokens.pop(); token !== undefined; token = tokens.pop()) {
      const lines = upgradeLines('/', [`Authorization: Bearer ${token}`])
      const answer = await rawUpgrade({ port: rig.port, localAddress: '127.0.0.66', lines })
      statuses.push(answer.status)
      answer.socket.destroy()
    }
  }
  await Promise.all(Array.from({ length: 8 }, work))
  t.strictSame(new Set(statuses), new Set([401]))
  t.equal(await enter(), true)
  t.equal(rig.api.counts.tokenReviews, 1)
  t.equal(rig.api.counts.jwks, 1)
  t.equal(rig.gateway.handshakes.length, 2)

  const metrics = await rig.metrics()
  const failed = (code: string) =>
    metrics.get(`openclaw_k8s_auth_failures_total{kind="denial",code="${code}"}`)
  for (const kind of badTokenClasses) t.equal(failed(BAD_TOKENS[kind]), perClass, kind)
  t.equal(
    metrics.get('openclaw_k8s_auth_attempts_total{result="failed"}'),
    perClass * badTokenClasses.length,
  )
  await clock.advanceAsync(1000)
  const lines = rig.audit.filter(({ event }) => event === 'k8s-auth-failed')
  t.strictSame(
    new Map(lines.map(({ code, count }) => [code, count])),
    new Map(badTokenClasses.map((kind) => [BAD_TOKENS[kind], perClass])),
  )
  t.equal(lines.length, badTokenClasses.length)
})

test('an address that fails too often is asked to wait, and no other address is', async (t) => {
  const clock = new FakeClock()
  clock.advance(1)
  const rig = await startRig({ clock, set: ['limits.failuresPerAddress=2/s'] })
  t.teardown(() => rig.stop())
  const good = rig.mint({ pod: rig.createPod() })
  const show = async (token: string, localAddress: string) => {
    const outcome = await rig.connect({ token, localAddress })
    if (outcome.ok) outcome.socket.terminate()
    return outcome.ok ? 101 : outcome.status
  }
  const statuses: number[] = []
  for (let n = 0; n < 15; n += 1) statuses.push(await show(`garbage-${n}`, '127.0.0.66'))
  t.equal(statuses.filter((status) => status === 401).length, 10)
  t.equal(statuses.filter((status) => status === 429).length, 5)
  t.equal(await show(good, '127.0.0.11'), 101)
  clock.advance(500)
  t.equal(await show('garbage', '127.0.0.66'), 401, 'one more after half a second')
  t.equal(await show('garbage', '127.0.0.66'), 429)
})
