/** Clusters that are odd and legitimate: moved pods, old tokens, changed issuers. The reason is named. */

import { dirname, join } from 'node:path'
import { test, type Test } from 'tap'
import { run as doctor } from '@openclaw-k8s/auth-sidecar/commands/doctor.ts'
import { startRig, type Rig } from '../kit/rig.ts'
import { runCommand } from '../kit/run-command.ts'
import { runUntil } from '../kit/run-clock.ts'
import { codeOf, startWatchedRig } from '../kit/watched-rig.ts'

const NS = 'openclaw'
const AUDIT_FLUSH_MS = 1000
const examine = async (rig: Rig, set: readonly string[]) => {
  const { stdout } = await runCommand(doctor, {
    set: [
      `listen.admin=${new URL(rig.adminUrl).host}`,
      `gateway.url=${rig.gateway.url}`,
      'gateway.protocol=stream',
      `kubernetes.apiServer=${rig.api.url}`,
      `kubernetes.caFile=${join(dirname(rig.tokenFile), 'ca.crt')}`,
      `kubernetes.tokenFile=${rig.tokenFile}`,
      'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}]',
      ...set,
    ],
  })
  return stdout
}
const moveTo = (ip: string) => ({ status: { podIP: ip, podIPs: [{ ip }] } })

test('a pod whose sandbox was made again gets in from its new address, and from no other', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const token = rig.mint({ pod: rig.createPod('moving', '127.0.0.11') })
  t.equal(codeOf(await rig.connect(token)), 'ok')
  api.patchPod(NS, 'moving', moveTo('127.0.0.12'))
  t.equal(codeOf(await rig.connect(token, '127.0.0.12')), 'ok', 'at once')
  const gets = api.counts.podGets
  const startedAt = clock.monotonic()
  for (const [from, code] of [
    ['127.0.0.11', 'source_address_mismatch'],
    ['127.0.0.13', 'source_address_unconfirmed'],
    ['127.0.0.14', 'source_address_unconfirmed'],
  ] as const) {
    t.equal(codeOf(await runUntil(clock, rig.connect(token, from))), code)
  }
  const seconds = (clock.monotonic() - startedAt) / 1000
  t.ok(api.counts.podGets <= gets + 1 + seconds / 2, 'one GET in two seconds')
})

test('a watch that is dead without a sign keeps a moved pod out for a moment only', async (t) => {
  const rig = await startWatchedRig(t)
  const { api, clock } = rig
  const token = rig.mint({ pod: rig.createPod('moving', '127.0.0.11') })
  t.equal(codeOf(await rig.connect(token)), 'ok')
  api.blackholeWatches()
  api.patchPod(NS, 'moving', moveTo('127.0.0.12'))
  const startedAt = clock.monotonic()
  const outcome = await runUntil(clock, rig.connect(token, '127.0.0.12'))
  t.equal(codeOf(outcome), 'ok', 'at the first try')
  t.ok(clock.monotonic() - startedAt <= 4000)
})

test('a token of a Secret is refused by the name of what it lacks, and the line says whose it is', async (t) => {
  const rig = await startWatchedRig(t)
  rig.createPod('worker', '127.0.0.11')
  const account = { namespace: NS, serviceAccount: 'openclaw-worker' }
  const legacy = {
    iss: 'kubernetes/serviceaccount',
    aud: undefined,
    exp: undefined,
    'kubernetes.io': undefined,
    'kubernetes.io/serviceaccount/namespace': NS,
    'kubernetes.io/serviceaccount/secret.name': 'a-secret',
    'kubernetes.io/serviceaccount/service-account.name': 'openclaw-worker',
    'kubernetes.io/serviceaccount/service-account.uid': 'any',
  }
  const outcome = await rig.connect(rig.mint({ ...account, claims: legacy }))
  t.equal(codeOf(outcome), 'token_not_pod_bound')
  rig.clock.advance(AUDIT_FLUSH_MS)
  t.match(rig.audit[0], { code: 'token_not_pod_bound' })
  t.match(JSON.stringify(rig.audit[0]), /openclaw-worker/)
})

const [OLD, NEW] = ['https://old.example', 'https://new.example']

test('while a cluster changes its issuer the tokens of both get in', async (t) => {
  const rig = await startWatchedRig(t, { api: { issuer: OLD } })
  const { api, clock } = rig
  const pod = rig.createPod('worker', '127.0.0.11')
  const of = (iss: string) => rig.mint({ pod, claims: { iss } })
  const old = of(OLD)
  t.equal(codeOf(await rig.connect(old)), 'ok')
  api.setIssuers(NEW, OLD)
  await clock.advanceAsync(30_000)
  const fetches = api.counts.discovery
  t.equal(codeOf(await rig.connect(of(NEW))), 'ok', 'the new issuer, at once')
  t.equal(api.counts.discovery, fetches + 1)
  t.equal(codeOf(await rig.connect(old)), 'ok', 'the earlier issuer')
  const foreign = of('https://x.example')
  t.equal(codeOf(await rig.connect(foreign)), 'keys_cooldown', 'nobody has asked for it yet')
  await clock.advanceAsync(30_000)
  t.equal(codeOf(await rig.connect(foreign)), 'issuer_not_allowed')
  for (let n = 0; n < 9; n += 1) t.equal(codeOf(await rig.connect(foreign)), 'keys_cooldown')
  t.equal(api.counts.discovery, fetches + 2, 'a foreign issuer is looked for once in 30 s')
  t.match(rig.log.join(''), /the cluster's issuer has changed/)

  api.setIssuers(NEW)
  t.equal(codeOf(await rig.connect(of(OLD))), 'review_rejected', 'the cluster has the last word')
})

test('a new issuer that cannot be asked for is a fault, and its worker gets in when it can', async (t) => {
  const rig = await startWatchedRig(t, { api: { issuer: OLD } })
  const { api, clock } = rig
  const pod = rig.createPod('worker', '127.0.0.11')
  const token = rig.mint({ pod, claims: { iss: NEW } })
  api.setIssuers(NEW, OLD)
  api.setFault('discovery', { kind: 'status', status: 500 })
  t.equal(codeOf(await rig.connect(token)), 'keys_unavailable')
  t.equal(codeOf(await rig.connect(token)), 'keys_cooldown', 'asked for just now')
  t.match(rig.log.join(''), /the cluster's issuer could not be asked for/)
  await clock.advanceAsync(30_000)
  api.clearFaults('discovery')
  t.equal(codeOf(await rig.connect(token)), 'ok')
})

/** TokenReviews are down, and the discovery document was never to be had. */
const startInOutage = async (t: Test, discovery: number) => {
  const rig = await startWatchedRig(t, {
    api: { issuer: OLD },
    set: ['k8sTrust.onApiOutage=verify-locally'],
    prepare(api) {
      api.setFault('discovery', { kind: 'status', status: discovery, body: { kind: 'Status' } })
    },
  })
  rig.api.setFault('tokenReviews', { kind: 'status', status: 500 })
  const pod = rig.createPod('worker', '127.0.0.11')
  const token = (iss: string) => rig.mint({ pod, claims: { iss } })
  return { rig: { ...rig, pod }, token, connect: rig.connect }
}

test('without a word about the issuer no local verdict is given, until there is one', async (t) => {
  const { connect, rig, token } = await startInOutage(t, 500)
  t.equal(codeOf(await connect(token(NEW))), 'review_unavailable')
  t.equal(codeOf(await connect(token(OLD))), 'review_unavailable')
  t.equal(codeOf(await connect(rig.mint({ pod: rig.pod, key: 'forged' }))), 'signature_invalid')
  t.match(rig.log.join(''), /without one, any issuer goes to a TokenReview and there are no local/)
  rig.api.clearFaults('discovery')
  await rig.clock.advanceAsync(30_000)
  t.equal(codeOf(await connect(token(OLD))), 'ok')
  t.equal(codeOf(await connect(token(NEW))), 'issuer_not_allowed')
})

test('a cluster that answers that it has no discovery document has its local verdicts', async (t) => {
  const { connect, token } = await startInOutage(t, 404)
  t.equal(codeOf(await connect(token(OLD))), 'ok')
})

test('with configured issuers the doctor needs no discovery document', async (t) => {
  const set = [`kubernetes.issuers=[${OLD}]`]
  const rig = await startRig({ api: { issuer: OLD }, set })
  t.teardown(rig.stop)
  rig.api.setFault('discovery', { kind: 'status', status: 500 })
  t.match(await examine(rig, set), '[ok] signing-keys: fetched; ')
})

test('several issuers are accepted where they are configured', async (t) => {
  const rig = await startRig({
    api: { issuer: OLD },
    set: [`kubernetes.issuers=[${NEW}, ${OLD}]`],
    prepare: (api) => api.setIssuers(OLD, NEW),
  })
  t.teardown(rig.stop)
  const pod = rig.createPod()
  const connectAs = async (iss: string) =>
    codeOf(await rig.connect({ token: rig.mint({ pod, claims: { iss } }) }))
  for (const iss of [OLD, NEW]) t.equal(await connectAs(iss), 'ok', iss)
  t.equal(await connectAs('https://x.example'), 'issuer_not_allowed')
})

test('an issuer that differs in the slash at its end is named in the log and by the doctor', async (t) => {
  const SAID =
    'the cluster issues tokens as https://oic.example/id/, which is not in kubernetes.issuers: ' +
    'https://oic.example/id differs in the slash at its end'
  const set = ['kubernetes.issuers=[https://oic.example/id]']
  const rig = await startRig({ api: { issuer: 'https://oic.example/id/' }, set })
  t.teardown(rig.stop)
  const outcome = await rig.connect({ token: rig.mint({ pod: rig.createPod() }) })
  t.equal(codeOf(outcome), 'issuer_not_allowed')
  t.match(rig.log.join(''), SAID)
  const report = await examine(rig, set)
  t.match(report, `[fail] signing-keys: ${SAID}. Add it there, or remove kubernetes.issuers.`)
})

test('behind a dead watch a ServiceAccount that is created again lets its new pods in, and its old ones never', async (t) => {
  for (const mute of ['serviceaccounts', undefined] as const) {
    const rig = await startWatchedRig(t)
    const { api, clock } = rig
    const old = rig.mint({ pod: rig.createPod('old', '127.0.0.11') })
    t.equal(codeOf(await rig.connect(old)), 'ok')
    api.blackholeWatches(mute)
    await clock.advanceAsync(3000)
    api.deleteServiceAccount(NS, 'openclaw-worker')
    api.createServiceAccount(NS, 'openclaw-worker')
    const token = rig.mint({ pod: rig.createPod('new', '127.0.0.12') })
    const startedAt = clock.monotonic()
    const outcome = await runUntil(clock, rig.connect(token, '127.0.0.12'))
    t.equal(codeOf(outcome), 'ok', 'at the first try')
    t.ok(clock.monotonic() - startedAt <= 8000)
    t.ok(rig.log.some((line) => line.includes('the watch is behind')))
    const refused = await runUntil(clock, rig.connect(old, '127.0.0.11'))
    t.equal(codeOf(refused), 'service_account_deleted')
  }
})
