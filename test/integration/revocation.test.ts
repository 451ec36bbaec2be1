/** Access goes with the pod: its streams close, its tokens are refused, and nobody else is touched. */

import { test } from 'tap'
import { connectWorker, closed } from '../kit/worker-client.ts'
import { waitUntil } from '../kit/wait.ts'
import { codeOf, echoes, startWatchedRig, type WatchedRig } from '../kit/watched-rig.ts'

const NS = 'openclaw'

const closesOf = ({ audit }: WatchedRig) =>
  audit.filter(({ event }) => event === 'k8s-session-closed')

test('a deleted pod loses its streams at once, and its token although the cluster still accepts it', async (t) => {
  const rig = await startWatchedRig(t, { api: { successCacheMs: 10_000 } })
  const { api, clock } = rig
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const first = await rig.openStream(pod)
  const second = await rig.openStream(pod, first.token)
  const other = await rig.openStream(rig.createPod('worker-b', '127.0.0.12'))
  const gateways = [...rig.gateway.connections]

  api.deletePod(NS, 'worker-a')
  for (const { socket } of [first, second]) {
    t.same(await closed(socket), { code: 1008, reason: 'pod_deleted' })
  }
  for (const gateway of gateways.slice(0, 2)) {
    t.same(await gateway.closed, { code: 1008, reason: 'pod_deleted' }, 'the gateway as well')
  }
  t.ok(await echoes(other.socket), 'another pod is not touched')
  const { tokenReviews } = api.counts
  const refused = await rig.connect(first.token)
  t.match(refused, { ok: false, status: 403, body: { error: { type: 'pod_deleted' } } })
  t.equal(api.counts.podGets, 0)
  t.equal(clock.monotonic(), 1, 'all this took no time')
  t.equal(api.counts.tokenReviews, tokenReviews, 'nobody had to be asked')
  t.equal(rig.gateway.handshakes.length, 3)

  await waitUntil(() => closesOf(rig).length === 2)
  t.match(
    closesOf(rig),
    [1, 2].map(() => ({
      code: 'pod_deleted',
      displayName: 'worker-a',
      podUid: pod.metadata.uid,
      namespace: NS,
    })),
  )
  const metrics = await rig.metrics()
  t.equal(metrics.get('openclaw_k8s_revocation_latency_seconds_count'), 2)
  t.equal(metrics.get('openclaw_k8s_stream_closes_total{code="pod_deleted"}'), 2)
  t.equal(metrics.get('openclaw_k8s_streams'), 1)
  t.equal(metrics.get('openclaw_k8s_watched_pods'), 1)
})

test('a pod re-created under its name gets nothing from the old one, and enters with its own token', async (t) => {
  const rig = await startWatchedRig(t, { api: { successCacheMs: 10_000 } })
  const old = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  const fresh = rig.api.recreatePod(NS, 'worker-a')
  t.same(await closed(old.socket), { code: 1008, reason: 'pod_deleted' })
  t.equal(codeOf(await rig.connect(old.token)), 'pod_deleted', 'same name, same address')
  t.equal(codeOf(await rig.connect(rig.mint({ pod: fresh }))), 'ok')
})

test('an address that passed to another pod serves that pod alone', async (t) => {
  const rig = await startWatchedRig(t, { api: { successCacheMs: 10_000 } })
  const old = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  rig.api.deletePod(NS, 'worker-a')
  await closed(old.socket)
  const heir = rig.createPod('worker-b', '127.0.0.11')
  t.equal(codeOf(await rig.connect(old.token)), 'pod_deleted')
  t.equal(codeOf(await rig.connect(rig.mint({ pod: heir }))), 'ok')
  const moved = rig.createPod('worker-c', '127.0.0.13')
  t.equal(codeOf(await rig.connect(rig.mint({ pod: moved }))), 'source_address_mismatch')
})

test('a name that another uid takes over ends the streams of the earlier pod, in any kind of event', async (t) => {
  const rig = await startWatchedRig(t)
  const old = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  const other = await rig.openStream(rig.createPod('worker-b', '127.0.0.12'))
  // A MODIFIED event with another uid, from a watch that has skipped the two events before.
  const pod = rig.api.patchPod(NS, 'worker-a', { metadata: { uid: 'another-uid' } })
  t.same(await closed(old.socket), { code: 1008, reason: 'pod_deleted' })
  t.equal(codeOf(await rig.connect(old.token)), 'pod_deleted')
  t.equal(codeOf(await rig.connect(rig.mint({ pod }))), 'ok')
  t.ok(await echoes(other.socket))
})

test('a stream ends with the address or the ServiceAccount that admitted it, and not for lack of news', async (t) => {
  const rig = await startWatchedRig(t, {
    set: ["k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: 'openclaw-*'}]"],
  })
  rig.api.createServiceAccount(NS, 'openclaw-other')
  const moved = await rig.openStream(rig.createPod('worker-a', '127.0.0.11'))
  const changed = await rig.openStream(rig.createPod('worker-b', '127.0.0.12'))
  const grown = await rig.openStream(rig.createPod('worker-c', '127.0.0.13'))
  const silent = await rig.openStream(rig.createPod('worker-d', '127.0.0.14'))
  const addresses = (...ips: readonly string[]) => ({
    status: { podIP: ips[0] ?? null, podIPs: ips.map((ip) => ({ ip })) },
  })
  rig.api.patchPod(NS, 'worker-c', addresses('127.0.0.13', '127.0.0.23'))
  rig.api.patchPod(NS, 'worker-d', addresses())
  rig.api.patchPod(NS, 'worker-a', addresses('127.0.0.21'))
  t.same(await closed(moved.socket), { code: 1008, reason: 'source_address_mismatch' })
  rig.api.patchPod(NS, 'worker-b', { spec: { serviceAccountName: 'openclaw-other' } })
  t.same(await closed(changed.socket), { code: 1008, reason: 'pod_mismatch' })
  t.ok(await echoes(grown.socket), 'one more address takes nothing away')
  t.ok(await echoes(silent.socket), 'a missing address says nothing about this one')
})

test('a terminating pod lets nobody in, and its streams get the shorter grace', async (t) => {
  const graces = [
    { own: 10, set: '30s', ms: 10_000 },
    { own: 600, set: '5s', ms: 5000 },
  ]
  for (const { own, set, ms } of graces) {
    const rig = await startWatchedRig(t, { set: [`k8sTrust.terminationGrace=${set}`] })
    const { api, clock } = rig
    const pod = rig.createPod('worker-a', '127.0.0.11')
    const { socket, token } = await rig.openStream(pod)
    api.pauseReviews()
    const pending = rig.connect(rig.mint({ pod }))
    await api.reviewArrived()
    api.deletePod(NS, 'worker-a', { gracePeriodSeconds: own })
    t.equal(codeOf(await pending), 'pod_terminating', 'one at the door is turned away')
    api.releaseReviews()
    const verdicts = async () => (await rig.metrics()).get('openclaw_k8s_verdict_cache_entries')
    t.equal(await verdicts(), 0, 'what was known of its tokens is forgotten')
    t.equal(codeOf(await rig.connect(token)), 'pod_terminating')
    t.ok(await echoes(socket))
    await clock.advanceAsync(ms - 1)
    t.ok(await echoes(socket), 'up to its grace')
    // The streams are asked once a second.
    await clock.advanceAsync(1000)
    t.same(await closed(socket), { code: 1008, reason: 'pod_terminating' })
    await waitUntil(() => closesOf(rig).length === 1)
    t.match(closesOf(rig), [{ code: 'pod_terminating' }])
    t.equal(await verdicts(), 1, 'the cluster still vouches for it')
    api.finishPod(NS, 'worker-a')
    await waitUntil(async () => (await verdicts()) === 0)
  }
})

test('a pod that ended by itself loses its streams, whatever its containers still do', async (t) => {
  const rig = await startWatchedRig(t)
  for (const [nth, phase] of ['Succeeded', 'Failed'].entries()) {
    const ip = `127.0.0.${21 + nth}`
    const { socket, token } = await rig.openStream(rig.createPod(`worker-${nth}`, ip))
    rig.api.patchPod(NS, `worker-${nth}`, { status: { phase } })
    t.same(await closed(socket), { code: 1008, reason: 'pod_not_running' })
    t.equal(codeOf(await rig.connect(token, ip)), 'pod_not_running')
  }
})

test('a deleted ServiceAccount ends the access of all its pods, even if it is re-created', async (t) => {
  const rig = await startWatchedRig(t, {
    api: { successCacheMs: 10_000 },
    watches: 4,
    set: [
      'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}, {namespace: openclaw, serviceAccount: other}]',
    ],
  })
  const streams = [
    await rig.openStream(rig.createPod('worker-a', '127.0.0.11')),
    await rig.openStream(rig.createPod('worker-b', '127.0.0.12')),
  ]
  const other = await rig.openStream(
    rig.createPod('worker-c', '127.0.0.13', { serviceAccount: 'other' }),
  )
  rig.api.deleteServiceAccount(NS, 'openclaw-worker')
  for (const { socket } of streams) {
    t.same(await closed(socket), { code: 1008, reason: 'service_account_deleted' })
  }
  const token = streams[0]?.token ?? ''
  t.equal(codeOf(await rig.connect(token)), 'service_account_deleted')
  rig.api.createServiceAccount(NS, 'openclaw-worker')
  t.equal(codeOf(await rig.connect(token)), 'service_account_deleted', 'its uid is another')
  t.ok(await echoes(other.socket))
})

test('a review that answers after its pod has gone is ignored', async (t) => {
  const rig = await startWatchedRig(t, { api: { successCacheMs: 10_000 } })
  const { api } = rig
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const token = rig.mint({ pod })
  api.pauseReviews()
  const sharing = [rig.connect(token), rig.connect(token)]
  await api.reviewArrived()
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_streams') === 2)
  api.deletePod(NS, 'worker-a')
  for (const each of sharing) t.equal(codeOf(await each), 'pod_terminating', 'at once')
  t.equal(api.reviewsHeld(), 1, 'while the API server has not yet said "authenticated"')
  api.releaseReviews()
  await waitUntil(
    async () =>
      (await rig.metrics()).get(
        'openclaw_k8s_token_review_duration_seconds_count{outcome="authenticated"}',
      ) === 1,
  )
  t.equal((await rig.metrics()).get('openclaw_k8s_verdict_cache_entries'), 0)
  t.equal(codeOf(await rig.connect(token)), 'pod_deleted')
  t.equal(rig.gateway.handshakes.length, 0)
  t.equal((await rig.metrics()).get('openclaw_k8s_streams'), 0)
})

test('an unseen pod is waited for at most 2 s, and one GET decides the refusal', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  api.blackholeWatches()
  // Nor does the watch that replaces it show anything.
  api.setFault('watches', { kind: 'hang' })
  const token = rig.mint({ pod: rig.createPod('worker-a', '127.0.0.11') })
  const isWaiting = async () =>
    waitUntil(async () => {
      const metrics = await rig.metrics()
      return (
        metrics.get('openclaw_k8s_streams') === 1 &&
        metrics.get('openclaw_k8s_verdict_cache_entries') === 1
      )
    })
  const first = rig.connect(token)
  await isWaiting()
  await clock.advanceAsync(1999)
  t.equal(api.counts.podGets, 0, 'not before the time is up')
  await clock.advanceAsync(1)
  await waitUntil(() => rig.log.some((line) => line.includes('the watch is behind')))
  await clock.advanceAsync(2000)
  const unconfirmed = await first
  t.match(unconfirmed, { ok: false, status: 503 })
  t.equal(codeOf(unconfirmed), 'pod_unconfirmed', 'the GET alone never admits')
  t.equal(api.counts.podGets, 1)

  api.deletePod(NS, 'worker-a')
  const second = rig.connect(token)
  await isWaiting()
  await clock.advanceAsync(2000)
  const gone = await second
  t.match(gone, { ok: false, status: 403 })
  t.equal(codeOf(gone), 'pod_not_found')
})

test('an unseen pod that the watch shows within the 2 s needs no GET', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  api.blackholeWatches()
  const attempt = rig.connect(rig.mint({ pod: rig.createPod('worker-a', '127.0.0.11') }))
  await api.requested('tokenReviews', 1)
  api.dropWatches()
  await waitUntil(() => api.openWatches() === 0)
  await clock.advanceAsync(50)
  t.equal(codeOf(await attempt), 'ok', 'the watch came back and showed it')
  t.equal(api.counts.podGets, 0)
})

test('a pod without an address yet is let in when the kubelet has written it', async (t) => {
  const rig = await startWatchedRig(t)
  const pod = rig.createPod('worker-a', '127.0.0.11', { ips: [], phase: 'Pending' })
  const attempt = rig.connect(rig.mint({ pod }))
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_verdict_cache_entries') === 1)
  rig.api.patchPod(NS, 'worker-a', { status: { podIPs: [{ ip: '127.0.0.11' }] } })
  t.equal(codeOf(await attempt), 'ok')
  t.equal(rig.clock.monotonic(), 1)
})

test('every address of a pod counts, over IPv4 and IPv6, and no other address does', async (t) => {
  const rig = await startWatchedRig(t, { set: ['listen.workers=[::]:0'] })
  const token = rig.mint({
    pod: rig.createPod('worker-a', '127.0.0.11', { ips: ['127.0.0.11', '::1'] }),
  })
  const from = async (host: string, localAddress: string) =>
    codeOf(await connectWorker({ url: `ws://${host}:${rig.port}`, localAddress, token }))
  t.equal(await from('127.0.0.1', '127.0.0.11'), 'ok', 'the socket says ::ffff:127.0.0.11')
  t.equal(await from('[::1]', '::1'), 'ok')
  t.equal(await from('127.0.0.1', '127.0.0.12'), 'source_address_mismatch')
  const single = rig.mint({ pod: rig.createPod('worker-b', '127.0.0.12') })
  t.equal(
    codeOf(await connectWorker({ url: `ws://[::1]:${rig.port}`, token: single })),
    'source_address_mismatch',
  )
  t.match(
    rig.gateway.handshakes.map(({ headers }) => headers['x-forwarded-for']),
    ['127.0.0.11', '::1'],
  )
})

test('pods on the host network enter only if configured', async (t) => {
  for (const [set, code] of [
    [[], 'host_network_not_allowed'],
    [['k8sTrust.allowHostNetwork=true'], 'ok'],
  ] as const) {
    const rig = await startWatchedRig(t, { set })
    const pod = rig.createPod('worker-a', '127.0.0.11', { hostNetwork: true })
    t.equal(codeOf(await rig.connect(rig.mint({ pod }))), code)
  }
})

test('if sources are hidden every audit line says that they were only reported', async (t) => {
  const rig = await startWatchedRig(t, {
    api: { successCacheMs: 10_000 },
    set: ['k8sTrust.sourceAddress=report'],
  })
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const { socket, token } = await rig.openStream(pod, rig.mint({ pod }))
  t.equal(codeOf(await rig.connect(token, '127.0.0.99')), 'ok', 'from anywhere')
  rig.api.deletePod(NS, 'worker-a')
  await closed(socket)
  t.equal(codeOf(await rig.connect(token, '127.0.0.99')), 'pod_deleted', 'but not after its end')
  await waitUntil(() => closesOf(rig).length === 2)
  await rig.clock.advanceAsync(1000)
  t.equal(rig.audit.length, 5)
  t.match(
    rig.audit,
    rig.audit.map(() => ({ sourceAddress: 'report', remoteIp: /^127\.0\.0\./ })),
  )

  const enforced = await startWatchedRig(t)
  const away = enforced.mint({ pod: enforced.createPod('worker-a', '127.0.0.11') })
  t.equal(codeOf(await enforced.connect(away, '127.0.0.99')), 'source_address_mismatch')
  await enforced.clock.advanceAsync(1000)
  t.match(enforced.audit, [{ code: 'source_address_mismatch', remoteIp: '127.0.0.99' }])
  t.notOk(enforced.audit.some((line) => 'sourceAddress' in line))
})
