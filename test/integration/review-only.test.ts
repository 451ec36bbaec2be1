/** A cluster that serves no signing keys: TokenReviews alone prove tokens, and only for pods in sight. */

import { test, type Test } from 'tap'
import type { ApiFault } from '../kit/kube-faults.ts'
import { runUntil } from '../kit/run-clock.ts'
import { waitUntil } from '../kit/wait.ts'
import { codeOf, startWatchedRig, type WatchedRig } from '../kit/watched-rig.ts'

const absent = (status: number): ApiFault => ({ kind: 'status', status, body: { kind: 'Status' } })
const readyz = async (rig: WatchedRig) => (await fetch(`${rig.adminUrl}/readyz?verbose`)).text()
const isReady = async (rig: WatchedRig) => (await fetch(`${rig.adminUrl}/readyz`)).ok

const start = async (t: Test, keys: ApiFault, set: readonly string[] = []) => {
  const rig = await startWatchedRig(t, {
    set,
    prepare(api) {
      api.setFault('jwks', keys)
      api.setFault('discovery', absent(404))
    },
  })
  return rig
}

const startReady = async (t: Test) => {
  const rig = await start(t, absent(404))
  await runUntil(
    rig.clock,
    waitUntil(() => isReady(rig)),
  )
  return rig
}

for (const status of [403, 404]) {
  test(`an API server that answers ${status} for its keys: ready, and said so everywhere`, async (t) => {
    const rig = await start(t, absent(status), ['kubernetes.issuers=[api]'])
    await runUntil(
      rig.clock,
      waitUntil(() => isReady(rig)),
    )
    t.match(await readyz(rig), '[!] jwks: the cluster serves no keys')
    t.equal((await rig.metrics()).get('openclaw_k8s_review_only'), 1)
    t.equal((await rig.metrics()).get('openclaw_k8s_own_credential_errors_total'), 0)
    t.equal(rig.log.filter((line) => line.includes('review-only mode')).length, 1)
    t.equal(rig.api.counts.discovery, 0, 'the issuer is configured')
    await rig.clock.advanceAsync(120_000)
    const told = rig.log.filter((line) => /signing keys/.test(line))
    t.equal(told.length, 2, 'the mode and its cause, once each')
  })
}

test('a worker is admitted by its TokenReview, where the watch shows its pod at its address', async (t) => {
  const rig = await start(t, absent(404))
  const { api, clock } = rig
  await runUntil(
    clock,
    waitUntil(() => isReady(rig)),
  )
  const pod = rig.createPod('worker-a', '127.0.0.11')
  t.equal(codeOf(await runUntil(clock, rig.connect(rig.mint({ pod })))), 'ok')
  t.equal(api.counts.tokenReviews, 1)

  const other = rig.createPod('worker-b', '127.0.0.12')
  const forged = rig.mint({ pod: other, key: 'forged' })
  t.equal(codeOf(await runUntil(clock, rig.connect(forged, '127.0.0.12'))), 'review_rejected')
})

test('a stranger learns nothing of a pod: one answer for all, and the reason is in metric and audit', async (t) => {
  const rig = await startReady(t)
  const { api, clock } = rig
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const ended = rig.createPod('worker-c', '127.0.0.13')
  t.equal(codeOf(await runUntil(clock, rig.connect(rig.mint({ pod: ended }), '127.0.0.13'))), 'ok')
  api.deletePod('openclaw', 'worker-c')
  const forge = (changes: Partial<typeof pod.metadata>) =>
    rig.mint({ pod: { ...pod, metadata: { ...pod.metadata, ...changes } }, key: 'forged' })
  const questions = {
    source_address_mismatch: forge({}),
    pod_unconfirmed: forge({ uid: 'no-such-pod' }),
    pod_mismatch: forge({ name: 'worker-x' }),
    pod_deleted: rig.mint({ pod: ended, key: 'forged' }),
  }
  const answers = new Set<string>()
  for (const [code, token] of Object.entries(questions)) {
    const outcome = await runUntil(clock, rig.connect(token, '127.0.0.21'))
    t.equal(codeOf(outcome), 'pod_unconfirmed', code)
    if (!outcome.ok) answers.add(`${outcome.status} ${JSON.stringify(outcome.body)}`)
    const kind = code === 'pod_unconfirmed' ? 'fault' : 'denial'
    const series = `openclaw_k8s_auth_failures_total{kind="${kind}",code="${code}"}`
    t.equal((await rig.metrics()).get(series), 1)
    await clock.advanceAsync(1000)
    t.equal(rig.audit.at(-1)?.code, code)
  }
  t.equal(answers.size, 1)
  t.equal(api.counts.tokenReviews, 1, 'none of them was worth a review')
})

test('a pod that moved gets in behind a dead watch; a thief costs one GET in two seconds', async (t) => {
  const rig = await startReady(t)
  const { api, clock } = rig
  const token = rig.mint({ pod: rig.createPod('moving', '127.0.0.11') })
  t.equal(codeOf(await runUntil(clock, rig.connect(token))), 'ok')
  api.blackholeWatches('pods')
  api.patchPod('openclaw', 'moving', {
    status: { podIP: '127.0.0.12', podIPs: [{ ip: '127.0.0.12' }] },
  })
  t.equal(codeOf(await runUntil(clock, rig.connect(token, '127.0.0.12'))), 'ok', 'at once')
  const gets = api.counts.podGets
  const startedAt = clock.monotonic()
  for (const from of ['127.0.0.11', '127.0.0.13', '127.0.0.14']) {
    t.equal(codeOf(await runUntil(clock, rig.connect(token, from))), 'pod_unconfirmed')
  }
  const seconds = (clock.monotonic() - startedAt) / 1000
  t.ok(api.counts.podGets > gets, 'only an answer refuses')
  t.ok(api.counts.podGets <= gets + 1 + seconds / 2, 'one GET in two seconds')
})

test('a ServiceAccount that is created again behind a dead watch lets its new pods in', async (t) => {
  const rig = await startReady(t)
  const { api, clock } = rig
  const old = rig.mint({ pod: rig.createPod('old', '127.0.0.11') })
  t.equal(codeOf(await runUntil(clock, rig.connect(old))), 'ok')
  api.blackholeWatches('serviceaccounts')
  await clock.advanceAsync(3000)
  api.deleteServiceAccount('openclaw', 'openclaw-worker')
  api.createServiceAccount('openclaw', 'openclaw-worker')
  const token = rig.mint({ pod: rig.createPod('new', '127.0.0.12') })
  t.equal(codeOf(await runUntil(clock, rig.connect(token, '127.0.0.12'))), 'ok', 'at once')
  t.equal(codeOf(await runUntil(clock, rig.connect(old))), 'pod_unconfirmed')
})

test('names that nobody has proven are not asked for', async (t) => {
  const rig = await startReady(t)
  const { api, clock } = rig
  const pod = rig.createPod('worker-a', '127.0.0.11')
  await runUntil(clock, rig.connect(rig.mint({ pod })))
  const { serviceAccountGets, podGets } = api.counts
  for (const changes of [{ uid: 'no-such-pod' }, { name: 'worker-x' }]) {
    const forged = { ...pod, metadata: { ...pod.metadata, ...changes } }
    const outcome = await runUntil(
      clock,
      rig.connect(rig.mint({ pod: forged, key: 'forged' }), '127.0.0.12'),
    )
    t.equal(codeOf(outcome), 'pod_unconfirmed')
  }
  t.strictSame([api.counts.serviceAccountGets, api.counts.podGets], [serviceAccountGets, podGets])
})

test('without keys verify-locally admits nobody in an outage', async (t) => {
  const rig = await start(t, absent(404), ['k8sTrust.onApiOutage=verify-locally'])
  await runUntil(
    rig.clock,
    waitUntil(() => isReady(rig)),
  )
  const pod = rig.createPod('worker-a', '127.0.0.11')
  rig.api.setFault('tokenReviews', { kind: 'status', status: 500 })
  const outcome = await runUntil(rig.clock, rig.connect(rig.mint({ pod })))
  t.equal(codeOf(outcome), 'review_unavailable')
})

test('the mode ends as soon as there are keys', async (t) => {
  const rig = await start(t, absent(404))
  const { api, clock } = rig
  await runUntil(
    clock,
    waitUntil(() => isReady(rig)),
  )
  api.clearFaults()
  await clock.advanceAsync(30_000)
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_review_only') === 0)
  t.match(await readyz(rig), '[+] jwks ok')
  t.ok(rig.log.some((line) => line.includes('review-only mode is over')))
  const other = rig.createPod('worker-b', '127.0.0.12')
  const forged = rig.mint({ pod: other, key: 'forged' })
  t.equal(codeOf(await runUntil(clock, rig.connect(forged, '127.0.0.12'))), 'signature_invalid')
})

test('an API server that is silent about its keys is waited for', async (t) => {
  const rig = await start(t, { kind: 'status', status: 500 })
  for (let n = 0; n < 20; n += 1) await rig.clock.advanceAsync(500)
  t.equal(await isReady(rig), false)
  t.match(await readyz(rig), '[-] jwks: no signing keys have been fetched yet')
})
