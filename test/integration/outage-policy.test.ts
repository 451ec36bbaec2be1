/** With local verification the sidecar admits, during an outage, exactly the workers that the API server would. */

import { test } from 'tap'
import { codeOf, echoes, startWatchedRig, type WatchedRig } from '../kit/watched-rig.ts'
import { withBadSignature } from '../kit/kube-tokens.ts'
import { runUntil } from '../kit/run-clock.ts'
import { waitUntil } from '../kit/wait.ts'

const NS = 'openclaw'
const LOCALLY = 'k8sTrust.onApiOutage=verify-locally'

const isLost = async ({ log }: WatchedRig) =>
  waitUntil(() => log.filter((line) => line.includes('was interrupted')).length >= 2)

const start = async (t: Parameters<typeof startWatchedRig>[0], set: readonly string[]) => {
  const rig = await startWatchedRig(t, { set })
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const ending = rig.createPod('ending', '127.0.0.12')
  rig.api.deletePod(NS, 'ending', { gracePeriodSeconds: 600 })
  const gone = rig.createPod('gone', '127.0.0.13')
  await rig.openStream(gone)
  rig.api.deletePod(NS, 'gone')
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_watched_pods') === 2)
  return { rig, pod, ending, gone }
}

test('without the API server new workers are refused, unless configured otherwise', async (t) => {
  const { rig, pod } = await start(t, [])
  await rig.api.stop()
  const refused = await rig.connect(rig.mint({ pod }))
  t.match(refused, { ok: false, status: 503 })
  t.equal(codeOf(refused), 'review_unavailable')
})

test('a local verdict needs the signature, the claims, the live pod and its address', async (t) => {
  const { rig, pod, ending, gone } = await start(t, [LOCALLY])
  const { api } = rig
  const reviewed = await rig.openStream(pod)
  const token = rig.mint({ pod })
  const unseen = rig.mint({
    pod: api.createPod({
      namespace: NS,
      name: 'other-account',
      serviceAccount: 'another',
      ips: ['127.0.0.14'],
    }),
  })
  await api.stop()
  await isLost(rig)
  const late = rig.createPod('late', '127.0.0.15')
  const refusals: readonly (readonly [string, string, string?])[] = [
    [withBadSignature(token, 1), 'signature_invalid'],
    [rig.mint({ pod, key: 'forged' }), 'signature_invalid'],
    [rig.mint({ pod, expiresInS: -1 }), 'token_expired'],
    [rig.mint({ pod, audiences: ['other'] }), 'audience_mismatch'],
    [rig.mint({ pod, claims: { iss: 'https://elsewhere' } }), 'keys_unavailable'],
    [unseen, 'identity_not_allowed', '127.0.0.14'],
    [token, 'source_address_unconfirmed', '127.0.0.99'],
    [rig.mint({ pod: ending }), 'pod_terminating', '127.0.0.12'],
    [rig.mint({ pod: gone }), 'pod_deleted', '127.0.0.13'],
  ]
  for (const [shown, code, address] of refusals) {
    t.equal(codeOf(await rig.connect(shown, address)), code)
  }
  const waiting = rig.connect(rig.mint({ pod: late }), '127.0.0.15')
  const unshown = await runUntil(rig.clock, waiting)
  t.equal(codeOf(unshown), 'pod_unconfirmed', 'a pod the watch never showed')

  const local = await rig.connect(token)
  if (!local.ok) throw new Error(codeOf(local))
  t.ok(await echoes(local.socket))
  const [, first, second] = rig.gateway.handshakes.map(({ headers }) =>
    Object.fromEntries(
      Object.entries(headers).filter(
        ([name]) => /^x-(openclaw|forwarded)/.test(name) && !/assertion|credential-id/.test(name),
      ),
    ),
  )
  t.same(second, first, 'the gateway is told what a review would have told')
  t.match(rig.gateway.handshakes[2]?.headers['x-openclaw-k8s-credential-id'], /^[0-9a-f-]{36}$/)
  reviewed.socket.terminate()
  local.socket.terminate()
})

test('a local verdict is not kept: the API server is asked as soon as it is back', async (t) => {
  const { rig, pod } = await start(t, [LOCALLY])
  const { api } = rig
  const token = rig.mint({ pod })
  const { tokenReviews } = api.counts
  api.setFault('tokenReviews', { kind: 'status', status: 500 })
  t.equal(codeOf(await rig.connect(token)), 'ok')
  t.equal(codeOf(await rig.connect(token)), 'ok')
  t.ok(api.counts.tokenReviews >= tokenReviews + 2)
  t.equal(api.counts.podGets, 0, 'the watch is heard')
  api.clearFaults()
  await rig.clock.advanceAsync(1000)
  api.setFault('tokenReviews', {
    kind: 'rewriteReview',
    rewrite: (review) => ({
      ...review,
      status: { user: {}, error: 'service account token has expired' },
    }),
  })
  t.equal(codeOf(await rig.connect(token)), 'review_rejected', 'its word goes before ours')
})

test('a missing right of ours is not an outage, and a live GET is believed if there is one', async (t) => {
  const { rig, pod } = await start(t, [LOCALLY])
  const { api } = rig
  api.setRbac({ tokenReviews: false })
  t.equal(codeOf(await rig.connect(rig.mint({ pod }))), 'own_credential_refused')
  api.setRbac({ tokenReviews: true })
  api.setFault('tokenReviews', { kind: 'reset' })
  api.blackholeWatches()
  await rig.clock.advanceAsync(2001)
  t.equal(codeOf(await rig.connect(rig.mint({ pod }))), 'ok')
  api.deletePod(NS, 'worker-a')
  await rig.clock.advanceAsync(2001)
  t.equal(codeOf(await rig.connect(rig.mint({ pod }))), 'pod_not_found')
})

test('a watch that was lost too long ago carries no local verdict', async (t) => {
  const { rig, pod } = await start(t, [LOCALLY, 'k8sTrust.maxWatchStaleness=30s'])
  const { api, clock } = rig
  await api.stop()
  await isLost(rig)
  await clock.advanceAsync(29_990)
  t.equal(codeOf(await rig.connect(rig.mint({ pod }))), 'ok')
  await clock.advanceAsync(20)
  t.equal(codeOf(await rig.connect(rig.mint({ pod }))), 'review_unavailable')
})

test('without any signing key nothing can be verified locally', async (t) => {
  const { rig, pod } = await start(t, [LOCALLY, 'k8sTrust.maxWatchStaleness=1h'])
  // Keys that were not fetched again for ten minutes are no longer trusted.
  await rig.api.stop()
  await isLost(rig)
  await rig.clock.advanceAsync(590_000)
  t.equal(codeOf(await rig.connect(rig.mint({ pod }))), 'ok')
  await rig.clock.advanceAsync(11_000)
  t.equal(codeOf(await rig.connect(rig.mint({ pod }))), 'review_unavailable')
})
