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

  const elsewhere = await runUntil(clock, rig.connect(rig.mint({ pod }), '127.0.0.12'))
  t.equal(codeOf(elsewhere), 'source_address_mismatch')
  const invented = rig.mint({
    pod: { ...pod, metadata: { ...pod.metadata, uid: 'no-such-pod' } },
  })
  t.equal(codeOf(await runUntil(clock, rig.connect(invented))), 'pod_unconfirmed')
  api.deletePod('openclaw', 'worker-a')
  t.equal(codeOf(await runUntil(clock, rig.connect(rig.mint({ pod })))), 'pod_deleted')
  t.equal(api.counts.tokenReviews, 1, 'none of them was worth a review')

  const other = rig.createPod('worker-b', '127.0.0.12')
  const forged = rig.mint({ pod: other, key: 'forged' })
  t.equal(codeOf(await runUntil(clock, rig.connect(forged, '127.0.0.12'))), 'review_rejected')
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
