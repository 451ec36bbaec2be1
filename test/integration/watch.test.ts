/** A watch that is cut, mute, late or refused misses no deletion and revokes no live pod. */

import { writeFile } from 'node:fs/promises'
import { test } from 'tap'
import { codeOf, echoes, startWatchedRig, type WatchedRig } from '../kit/watched-rig.ts'
import { runUntil } from '../kit/run-clock.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed } from '../kit/worker-client.ts'

const NS = 'openclaw'
const metric = async (rig: WatchedRig, name: string) =>
  (await rig.metrics()).get(`openclaw_k8s_${name}`)

/** Lets time pass until both watches are open again. */
const reconnect = async (rig: WatchedRig) => {
  for (let n = 0; n < 100 && rig.api.openWatches() < 2; n += 1) await rig.clock.advanceAsync(50)
  await waitUntil(() => rig.api.openWatches() === 2)
}

/** A stream that stays and one whose pod is about to go. */
const openTwo = async (rig: WatchedRig) => {
  const staying = await rig.openStream(rig.createPod('staying', '127.0.0.11'))
  const going = await rig.openStream(rig.createPod('going', '127.0.0.12'))
  return { staying, going }
}

test('between a cut and the next event no worker of a gone pod enters, although the watch still shows it', async (t) => {
  const rig = await startWatchedRig(t, { api: { successCacheMs: 60_000 } })
  const { api, clock } = rig
  const { staying, going } = await openTwo(rig)
  api.dropWatches()
  await waitUntil(() => api.openWatches() === 0)
  await waitUntil(
    async () => rig.log.filter((line) => line.includes('was interrupted')).length === 2,
  )
  api.deletePod(NS, 'going')
  const gets = api.counts.podGets
  t.equal(codeOf(await rig.connect(going.token, '127.0.0.12')), 'pod_not_found')
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  t.equal(api.counts.podGets, gets + 2, 'each was asked for')
  t.equal(clock.monotonic(), 1)
  await reconnect(rig)
  t.same(await closed(going.socket), { code: 1008, reason: 'pod_deleted' }, 'and then it shows')
  t.ok(await echoes(staying.socket))
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  t.equal(api.counts.podGets, gets + 2, 'a watch that is heard needs no question')
})

test('twenty cuts in a row miss no deletion and revoke nobody else', async (t) => {
  const rig = await startWatchedRig(t)
  const { api } = rig
  const staying = await rig.openStream(rig.createPod('staying', '127.0.0.11'))
  for (let n = 0; n < 20; n += 1) {
    const going = await rig.openStream(rig.createPod(`going-${n}`, '127.0.0.12'))
    api.dropWatches()
    await waitUntil(() => api.openWatches() === 0)
    api.deletePod(NS, `going-${n}`)
    await reconnect(rig)
    t.equal((await closed(going.socket)).reason, 'pod_deleted')
  }
  t.ok(await echoes(staying.socket))
  t.equal(await metric(rig, 'streams'), 1)
  t.equal(api.counts.lists, 2, 'all from one list each: no event was lost')
})

test('a mute watch is no longer believed after 2 s: a live answer serves for as long', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const { staying } = await openTwo(rig)
  api.blackholeWatches()
  await clock.advanceAsync(2001)
  const gets = api.counts.podGets
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  t.equal(api.counts.podGets, gets + 1)
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  t.equal(api.counts.podGets, gets + 1, 'for two seconds')
  await clock.advanceAsync(2001)
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  t.equal(api.counts.podGets, gets + 2)
  t.equal(await metric(rig, 'watch_stale_seconds'), 0)
})

test('an answer that contradicts a mute watch refuses, and ends that watch', async (t) => {
  const rig = await startWatchedRig(t, { api: { successCacheMs: 60_000 } })
  const { api, clock } = rig
  const { staying, going } = await openTwo(rig)
  api.blackholeWatches()
  api.deletePod(NS, 'going')
  await clock.advanceAsync(2001)
  const gets = api.counts.podGets
  api.pause('podGets')
  const sharing = [1, 2, 3].map(async () => rig.connect(going.token, '127.0.0.12'))
  await waitUntil(async () => (await metric(rig, 'streams')) === 5)
  await api.arrived('podGets')
  t.ok(await echoes(going.socket), 'nobody has told us yet')
  api.release('podGets')
  for (const each of sharing) t.equal(codeOf(await each), 'pod_not_found')
  t.equal(api.counts.podGets, gets + 1, 'those who wait for the same answer share it')
  const end = await runUntil(clock, closed(going.socket))
  t.same(end, { code: 1008, reason: 'pod_deleted' })
  t.ok(await echoes(staying.socket))
})

test('behind a mute watch no worker of a deleted or re-created ServiceAccount enters', async (t) => {
  for (const [name, mute] of [
    ['that of the ServiceAccounts', ['serviceaccounts']],
    ['both', ['pods', 'serviceaccounts']],
  ] as const) {
    const rig = await startWatchedRig(t, { api: { successCacheMs: 60_000 } })
    const { api, clock } = rig
    const { staying, going } = await openTwo(rig)
    for (const resource of mute) api.blackholeWatches(resource)
    api.deleteServiceAccount(NS, 'openclaw-worker')
    await clock.advanceAsync(2001)
    const { serviceAccountLookups: lookups, tokenReviews } = api.counts
    const code = 'service_account_deleted'
    t.equal(codeOf(await rig.connect(staying.token)), code, name)
    t.equal(codeOf(await rig.connect(going.token, '127.0.0.12')), code)
    t.equal(api.counts.tokenReviews, tokenReviews, 'on a verdict that is still cached')

    api.createServiceAccount(NS, 'openclaw-worker')
    t.equal(codeOf(await rig.connect(staying.token)), code, 'another uid is another account')
    t.equal(
      api.counts.serviceAccountLookups,
      lookups + 3,
      'each was asked for: no answer could admit',
    )
    t.equal(api.counts.serviceAccountGets, 0, 'by the right that the watch needs')
    t.ok(await echoes(staying.socket), 'nobody has told us yet')
    await clock.advanceAsync(35_000)
    await reconnect(rig)
    t.same(await closed(staying.socket), { code: 1008, reason: code })
  }
})

test('behind a mute watch of ServiceAccounts one request serves all their pods for two seconds', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const { staying, going } = await openTwo(rig)
  api.blackholeWatches('serviceaccounts')
  await clock.advanceAsync(2001)
  rig.createPod('word', '127.0.0.13')
  await waitUntil(async () => (await metric(rig, 'watched_pods')) === 3)
  const { serviceAccountLookups: lookups, podGets } = api.counts
  api.pause('serviceAccountLookups')
  const herd = Array.from({ length: 6 }, async (_, nth) =>
    nth % 2 === 0 ? rig.connect(staying.token) : rig.connect(going.token, '127.0.0.12'),
  )
  await waitUntil(async () => (await metric(rig, 'streams')) === 8)
  await api.arrived('serviceAccountLookups')
  api.release('serviceAccountLookups')
  for (const each of herd) t.equal(codeOf(await each), 'ok')
  await clock.advanceAsync(1999)
  rig.createPod('word-2', '127.0.0.14')
  await waitUntil(async () => (await metric(rig, 'watched_pods')) === 4)
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  t.equal(api.counts.serviceAccountLookups, lookups + 1)
  t.equal(api.counts.podGets, podGets, 'the pods are heard of')
})

test('an answer that is not a list of ServiceAccounts is a fault, and in an outage the last event counts', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const { staying } = await openTwo(rig)
  await clock.advanceAsync(2001)
  for (const body of [{}, { items: [{}] }, { kind: 'Status' }, [], 'x']) {
    api.setFault('serviceAccountLookups', { kind: 'status', status: 200, body })
    const refused = await rig.connect(rig.mint({ pod: staying.pod }))
    t.match(refused, { ok: false, status: 503 })
    t.equal(codeOf(refused), 'pod_unconfirmed')
  }
  t.equal(codeOf(await rig.connect(staying.token)), 'ok', 'its verdict is cached')
  api.setFault('serviceAccountLookups', { kind: 'status', status: 404, body: { kind: 'Status' } })
  const unknown = await rig.connect(rig.mint({ pod: staying.pod }))
  t.equal(codeOf(unknown), 'pod_unconfirmed', 'a collection that is not there names nobody')
  api.clearFaults()
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
})

test('behind a quiet watch the pods of a herd are looked up in turn, each once', async (t) => {
  const paces = { podGets: { ratePerSecond: 1, serviceMs: 100, waitMsMax: 1000 } }
  const rig = await startWatchedRig(t, { api: { paces }, set: ['review.concurrency=1'] })
  const { api, clock } = rig
  const herd = Array.from({ length: 6 }, (_, nth) => {
    const address = `127.0.0.${20 + nth}`
    return { address, token: rig.mint({ pod: rig.createPod(`worker-${nth}`, address) }) }
  })
  await waitUntil(async () => (await metric(rig, 'watched_pods')) === 6)
  // By then the last event of the watch is too old, and the last GET is due in twice a deadline.
  await clock.advanceAsync(2001)
  const codes = herd.map(async ({ address, token }) => codeOf(await rig.connect(token, address)))
  t.strictSame(await runUntil(clock, Promise.all(codes)), Array(6).fill('ok'))
  t.equal(api.counts.podGets, 6)
})

test('what a compacted history no longer contains is found in a new list', async (t) => {
  const rig = await startWatchedRig(t)
  const { api } = rig
  const { staying, going } = await openTwo(rig)
  const replaced = await rig.openStream(rig.createPod('replaced', '127.0.0.13'))
  api.dropWatches()
  await waitUntil(() => api.openWatches() === 0)
  api.deletePod(NS, 'going')
  const fresh = api.recreatePod(NS, 'replaced')
  api.expireWatches()
  await reconnect(rig)
  for (const { socket } of [going, replaced]) {
    t.same(await closed(socket), { code: 1008, reason: 'pod_deleted' })
  }
  t.equal(api.counts.lists, 4)
  t.ok(await echoes(staying.socket))
  t.equal(codeOf(await rig.connect(rig.mint({ pod: fresh }), '127.0.0.13')), 'ok')

  // The same, said on a watch that is open.
  api.expireWatches()
  await waitUntil(() => api.openWatches() === 0)
  await reconnect(rig)
  t.ok(api.counts.lists >= 6)
  t.ok(await echoes(staying.socket))
})

test('during an outage a pod last seen alive enters with a cached verdict for 10 s', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const { staying, going } = await openTwo(rig)
  const unknown = rig.mint({ pod: api.getPod(NS, 'staying') ?? staying.pod })
  await api.stop()
  api.deletePod(NS, 'going')
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  t.equal(codeOf(await rig.connect(unknown)), 'review_unavailable')
  await clock.advanceAsync(9990)
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  const elsewhere = codeOf(await rig.connect(staying.token, '127.0.0.99'))
  t.equal(elsewhere, 'source_address_unconfirmed', 'nobody can say whether the pod has moved')
  await clock.advanceAsync(20)
  t.equal(codeOf(await rig.connect(staying.token)), 'review_unavailable', 'not until cacheTtl')
  t.ok(await echoes(going.socket), 'nobody could tell')
  t.equal((await fetch(`${rig.adminUrl}/readyz`)).status, 200, 'ready all the while')
  t.ok(((await metric(rig, 'watch_stale_seconds')) ?? 0) >= 10)

  await api.start()
  await reconnect(rig)
  t.same(await closed(going.socket), { code: 1008, reason: 'pod_deleted' })
  t.ok(await echoes(staying.socket))
  // The breaker gives the API server a second.
  await clock.advanceAsync(1000)
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
  t.equal(await metric(rig, 'watch_stale_seconds'), 0, 'a watch that lasts is believed again')
})

test('rotating our token during a watch costs a pause and is not an error', async (t) => {
  const rig = await startWatchedRig(t)
  const { api } = rig
  const { staying } = await openTwo(rig)
  api.revokeSidecarToken()
  await writeFile(rig.tokenFile, api.sidecarToken())
  api.dropWatches()
  await waitUntil(() => api.openWatches() === 0)
  await reconnect(rig)
  t.equal(await metric(rig, 'own_credential_errors_total'), 0)
  t.ok(await echoes(staying.socket))
})

test('without the right to watch pods nobody enters, the log says so, and granting it is enough', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const { staying } = await openTwo(rig)
  api.setRbac({ pods: false })
  api.dropWatches()
  await waitUntil(
    async () =>
      ((await metric(rig, 'own_credential_errors_total')) ?? 0) > 0 ||
      (await clock.advanceAsync(50)) === null,
  )
  const refused = await rig.connect(staying.token)
  t.match(refused, { ok: false, status: 503 })
  t.equal(codeOf(refused), 'own_credential_refused')
  t.ok(await echoes(staying.socket))
  api.setRbac({ pods: true })
  await reconnect(rig)
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
})

test('an answer that is not a pod is a fault of the API server, and does not end the sidecar', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const { staying } = await openTwo(rig)
  await clock.advanceAsync(2001)
  for (const body of [{}, { kind: 'Status' }, [], { metadata: { uid: 7 } }]) {
    api.setFault('podGets', { kind: 'status', status: 200, body })
    const refused = await rig.connect(rig.mint({ pod: staying.pod }))
    t.match(refused, { ok: false, status: 503 })
    t.equal(codeOf(refused), 'pod_unconfirmed')
  }
  api.clearFaults()
  t.equal(codeOf(await rig.connect(staying.token)), 'ok')
})

test('many pods are listed in pages, and each of them is known', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const pods = Array.from({ length: 250 }, (_, n) =>
    rig.createPod(`worker-${n}`, `127.0.${1 + (n >> 7)}.${1 + (n & 127)}`),
  )
  await waitUntil(async () => (await metric(rig, 'watched_pods')) === 250)
  api.deletePod(NS, 'worker-3')
  api.expireWatches()
  await waitUntil(() => api.openWatches() === 0)
  await reconnect(rig)
  await waitUntil(async () => (await metric(rig, 'watched_pods')) === 249)
  const pages = api.requests.filter(
    ({ route, url }) => route === 'lists' && url.includes('continue='),
  )
  t.equal(pages.length, 2, 'three pages of a hundred')
  const last = pods.at(-1)
  if (last === undefined) throw new Error('no pod')
  t.equal(codeOf(await rig.connect(rig.mint({ pod: last }), last.status.podIP)), 'ok')
  t.equal(clock.now() > 0, true)
})

test('from an API server that is too slow for long pages, all pods are listed in shorter ones', async (t) => {
  const rig = await startWatchedRig(t, {
    watches: 1,
    prepare(api) {
      for (let n = 0; n < 250; n += 1) {
        api.createPod({
          namespace: NS,
          name: `worker-${n}`,
          serviceAccount: 'openclaw-worker',
          ips: [`127.0.${1 + (n >> 7)}.${1 + (n & 127)}`],
        })
      }
      api.setFault('lists', { kind: 'hangAbove', objects: 30 })
    },
  })
  const { api, clock } = rig
  const isListed = async () => (await metric(rig, 'watched_pods')) === 250
  await runUntil(clock, waitUntil(isListed), 500)
  const last = api.getPod(NS, 'worker-249')
  if (last === undefined) throw new Error('no pod')
  const token = rig.mint({ pod: last, expiresInS: 3600 })
  t.equal(codeOf(await runUntil(clock, rig.connect(token, last.status.podIP))), 'ok')
  t.match(rig.log.join(''), /no answer within 15000 ms/, 'and the log says why it took so long')
})

test('a namespace that answers its lists after a minute holds the others back for 5 s only', async (t) => {
  const allowed = [NS, 'slow'].map(
    (name) => `{namespace: ${name}, serviceAccount: openclaw-worker}`,
  )
  const rig = await startWatchedRig(t, {
    set: [`k8sTrust.allowedIdentities=[${allowed.join(', ')}]`],
    prepare: (api) => api.setFault('lists', { kind: 'delay', ms: 60_000 }, { namespace: 'slow' }),
  })
  const { clock } = rig
  const readyz = async () => (await fetch(`${rig.adminUrl}/readyz?verbose`)).text()
  const isReady = async () => (await fetch(`${rig.adminUrl}/readyz`)).ok
  await clock.advanceAsync(4900)
  t.equal(await isReady(), false, 'it may still come')
  await runUntil(clock, waitUntil(isReady), 10)
  t.ok(clock.monotonic() <= 5500, `ready after ${clock.monotonic()} ms`)
  t.match(await readyz(), '[!] pods: namespace slow,', 'the slow one is named')
  const pod = rig.createPod('worker', '127.0.0.11')
  t.equal(codeOf(await runUntil(clock, rig.connect(rig.mint({ pod })))), 'ok')
})

test('a watch asks narrowly, and ends often enough to be recognized as dead', async (t) => {
  const rig = await startWatchedRig(t)
  const asked = rig.api.requests.filter(({ route }) => route === 'watches')
  t.equal(asked.length, 2)
  for (const { url } of asked) {
    const query = new URL(url, rig.api.url).searchParams
    t.equal(query.get('allowWatchBookmarks'), 'true')
    t.match(
      query.get('fieldSelector'),
      /^(spec\.serviceAccountName|metadata\.name)=openclaw-worker$/,
    )
    const seconds = Number(query.get('timeoutSeconds'))
    t.ok(seconds >= 20 && seconds <= 30)
  }
})

test('a load balancer that drops the watch without a word keeps a new pod out for a moment only', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  await openTwo(rig)
  api.blackholeWatches()
  await clock.advanceAsync(3000)
  const pod = rig.createPod('new', '127.0.0.13')
  const startedAt = clock.monotonic()
  const outcome = await runUntil(clock, rig.connect(rig.mint({ pod }), '127.0.0.13'))
  t.equal(codeOf(outcome), 'ok', 'at the first try')
  t.ok(clock.monotonic() - startedAt <= 4000)
  t.ok(rig.log.some((line) => line.includes('the watch is behind')))
  const opened = api.counts.watches
  for (let n = 0; n < 9; n += 1) {
    const next = rig.createPod(`new-${n}`, `127.0.0.${20 + n}`)
    await runUntil(clock, rig.connect(rig.mint({ pod: next }), `127.0.0.${20 + n}`))
  }
  t.ok(api.counts.watches - opened <= 1, 'and the watch that works is left alone')
})
