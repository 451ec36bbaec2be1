/** What the expiry of a token means for the stream it opened, and for the worker that shows it again. */

import { test } from 'tap'
import { codeOf, echoes, startWatchedRig, type WatchedRig } from '../kit/watched-rig.ts'
import { withBadSignature } from '../kit/kube-tokens.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed } from '../kit/worker-client.ts'

const NS = 'openclaw'
const HOUR_S = 3600

/** Only the wall clock moves, and with it every `exp`. */
const passWallTime = async ({ clock }: WatchedRig, seconds: number) => {
  clock.stepWall(seconds * 1000)
  // Streams are reviewed once a second.
  await clock.advanceAsync(1000)
}

test('a stream outlives its token while its pod lives, but the token opens no other stream', async (t) => {
  const rig = await startWatchedRig(t)
  const { socket, token } = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  await passWallTime(rig, HOUR_S)
  t.ok(await echoes(socket))
  const refused = await rig.connect(token)
  t.match(refused, { ok: false, status: 401 })
  t.equal(codeOf(refused), 'token_expired')
  t.equal(rig.api.counts.tokenReviews, 1, 'decided without a question')
  rig.api.deletePod(NS, 'worker-a')
  t.same(await closed(socket), { code: 1008, reason: 'pod_deleted' })
})

test('with the option a stream ends with its token, to the second; other streams do not', async (t) => {
  const rig = await startWatchedRig(t, { set: ['k8sTrust.onTokenExpiry=close'] })
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const short = await rig.openStream(pod, rig.mint({ pod, expiresInS: HOUR_S }))
  const long = await rig.openStream(pod, rig.mint({ pod, expiresInS: 2 * HOUR_S }))
  await passWallTime(rig, HOUR_S - 2)
  t.ok(await echoes(short.socket), 'one second before')
  await rig.clock.advanceAsync(1000)
  t.same(await closed(short.socket), { code: 1008, reason: 'token_expired' })
  t.ok(await echoes(long.socket))
  await waitUntil(() => rig.audit.some(({ event }) => event === 'k8s-session-closed'))
  t.match(
    rig.audit.filter(({ event }) => event === 'k8s-session-closed'),
    [{ code: 'token_expired', displayName: 'worker-a' }],
  )
})

test('a stream that reaches its maximum age is asked to reconnect', async (t) => {
  const rig = await startWatchedRig(t, { set: ['k8sTrust.maxSessionAge=5s'] })
  const { socket, token } = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  await rig.clock.advanceAsync(2500)
  const younger = await rig.connect(token)
  if (!younger.ok) throw new Error('refused')
  await rig.clock.advanceAsync(2400)
  t.ok(await echoes(socket))
  await rig.clock.advanceAsync(1000)
  t.same(await closed(socket), { code: 1012, reason: 'session_age_exceeded' })
  t.ok(await echoes(younger.socket))
  t.equal(codeOf(await rig.connect(token)), 'ok')
  younger.socket.terminate()
})

test('a token with too long a lifetime is refused from the start', async (t) => {
  const rig = await startWatchedRig(t, { set: ['k8sTrust.maxTokenLifetime=2h'] })
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const connect = async (expiresInS: number) =>
    codeOf(await rig.connect(rig.mint({ pod, expiresInS })))
  t.equal(await connect(2 * HOUR_S), 'ok')
  t.equal(await connect(2 * HOUR_S + 1), 'token_lifetime_exceeded')
  t.equal(rig.api.counts.tokenReviews, 1)
})

test('within the grace an expired token enters again, if it was reviewed before, its pod lives and the address matches', async (t) => {
  const rig = await startWatchedRig(t, { set: ['k8sTrust.expiredTokenReconnectGrace=10m'] })
  const { api } = rig
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const { token } = await rig.openStream(pod)
  const unseen = rig.mint({ pod })
  await passWallTime(rig, HOUR_S + 300)
  const { tokenReviews } = api.counts
  t.equal(codeOf(await rig.connect(token)), 'ok')
  t.equal(codeOf(await rig.connect(unseen)), 'token_expired', 'never reviewed')
  t.equal(codeOf(await rig.connect(withBadSignature(token, 0))), 'signature_invalid')
  t.equal(codeOf(await rig.connect(token, '127.0.0.99')), 'source_address_mismatch')
  t.equal(api.counts.tokenReviews, tokenReviews, 'the cluster, which would say no, is not asked')
  await passWallTime(rig, 297)
  t.equal(codeOf(await rig.connect(token)), 'ok')
  await passWallTime(rig, 2)
  t.equal(codeOf(await rig.connect(token)), 'token_expired', 'its grace is over')
})

test('the grace ends with the pod, and no grace is given unless configured', async (t) => {
  const rig = await startWatchedRig(t, { set: ['k8sTrust.expiredTokenReconnectGrace=10m'] })
  const { socket, token } = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  await passWallTime(rig, HOUR_S)
  rig.api.deletePod(NS, 'worker-a', { gracePeriodSeconds: 60 })
  // A terminating pod is forgotten by the voucher before the binding is asked.
  await waitUntil(async () => !(await rig.connect(token)).ok)
  t.ok(await echoes(socket))
  rig.api.recreatePod(NS, 'worker-a')
  await closed(socket)
  t.equal(codeOf(await rig.connect(token)), 'pod_deleted')
})

test('without a watch a stream outlives an expired token for a limited time, and a valid one for ever', async (t) => {
  const rig = await startWatchedRig(t, { set: ['k8sTrust.maxWatchStaleness=30s'] })
  const { api, clock } = rig
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const short = await rig.openStream(pod, rig.mint({ pod, expiresInS: HOUR_S }))
  const long = await rig.openStream(pod, rig.mint({ pod, expiresInS: 9 * HOUR_S }))
  await passWallTime(rig, HOUR_S)
  await api.stop()
  await waitUntil(() => rig.log.some((line) => line.includes('was interrupted')))
  await clock.advanceAsync(29_000)
  t.ok(await echoes(short.socket))
  await clock.advanceAsync(2100)
  t.same(await closed(short.socket), { code: 1013, reason: 'watch_stale' })
  t.ok(await echoes(long.socket))
  await api.start()
})

test('a watch that comes back in time saves the streams of expired tokens', async (t) => {
  const rig = await startWatchedRig(t, { set: ['k8sTrust.maxWatchStaleness=30s'] })
  const { api, clock } = rig
  const { socket } = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  await passWallTime(rig, HOUR_S)
  await api.stop()
  await waitUntil(() => rig.log.some((line) => line.includes('was interrupted')))
  await clock.advanceAsync(20_000)
  await api.start()
  for (let n = 0; n < 100 && api.openWatches() < 2; n += 1) await clock.advanceAsync(50)
  await waitUntil(() => api.openWatches() === 2)
  api.sendBookmark()
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_watch_stale_seconds') === 0)
  await clock.advanceAsync(15_000)
  t.ok(await echoes(socket))
})
