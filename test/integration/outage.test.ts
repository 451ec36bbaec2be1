/** While nobody can say who a worker is, nobody is let in, nobody is told to go away for good, and streams live on. */

import { writeFile } from 'node:fs/promises'
import { test, type Test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import type { ApiFault } from '../kit/kube-faults.ts'
import { startRig, type RigOptions } from '../kit/rig.ts'
import { nextMessage, type Connected, type Refused } from '../kit/worker-client.ts'

const DEADLINE_MS = 3000

const start = async (t: Test, options: RigOptions = {}) => {
  const clock = new FakeClock()
  clock.advance(1)
  const rig = await startRig({ clock, ...options })
  t.teardown(() => rig.stop())
  const pod = rig.createPod()
  const fresh = () => rig.mint({ pod })
  return { ...rig, clock, pod, fresh }
}

const codeOf = (outcome: Connected | Refused) =>
  outcome.ok ? 'ok' : (outcome.body as { error: { type: string } }).error.type

const end = (outcome: Connected | Refused) => {
  if (outcome.ok) outcome.socket.terminate()
  return codeOf(outcome)
}

/** A fault is worth a retry, and says so. */
const isRetryable = (outcome: Connected | Refused) =>
  !outcome.ok && outcome.status === 503 && Number(outcome.headers['retry-after']) > 0

const open = async (rig: Awaited<ReturnType<typeof start>>) => {
  const outcome = await rig.connect({ token: rig.fresh() })
  if (!outcome.ok) throw new Error(codeOf(outcome))
  return outcome.socket
}

test('without the API server open streams live on, known tokens enter until their TTL, and others get a 503', async (t) => {
  const rig = await start(t)
  const { api, clock, fresh } = rig
  const known = fresh()
  const stream = await rig.connect({ token: known })
  if (!stream.ok) throw new Error(codeOf(stream))
  await api.stop()

  const refused = await rig.connect({ token: fresh() })
  t.ok(isRetryable(refused), 'a 503 with Retry-After')
  t.equal(codeOf(refused), 'review_unavailable')
  t.equal(end(await rig.connect({ token: known })), 'ok', 'a cached verdict holds')
  t.equal(clock.monotonic(), 1, 'and all this took no time')

  stream.socket.send('still here')
  t.equal((await nextMessage(stream.socket)).text, 'still here')

  await clock.advanceAsync(61_000)
  const late = rig.connect({ token: known })
  await clock.advanceAsync(DEADLINE_MS)
  t.ok(isRetryable(await late), 'but not longer than its TTL')
  stream.socket.send('and still')
  t.equal((await nextMessage(stream.socket)).text, 'and still')

  await api.start()
  await clock.advanceAsync(2000)
  t.equal(end(await rig.connect({ token: fresh() })), 'ok', 'the API server is back')
  stream.socket.terminate()
})

test('whatever way the API server fails, a new worker gets the same 503 within the deadline', async (t) => {
  const faults: Readonly<Record<string, ApiFault>> = {
    hang: { kind: 'hang' },
    'half a body, then nothing': { kind: 'halfBody', ending: 'stall' },
    'half a body, then a cut': { kind: 'halfBody', ending: 'cut' },
    reset: { kind: 'reset' },
    garbage: { kind: 'garbage' },
    429: { kind: 'status', status: 429, headers: { 'retry-after': '60' } },
    500: { kind: 'status', status: 500, body: { kind: 'Status' } },
    404: { kind: 'status', status: 404, body: { kind: 'Status', code: 404 } },
    'a 200 that is not a review': { kind: 'status', status: 200, body: { kind: 'Status' } },
    slow: { kind: 'delay', ms: DEADLINE_MS + 1 },
  }
  const rig = await start(t)
  const { api, clock, fresh } = rig
  for (const [name, fault] of Object.entries(faults)) {
    api.setFault('tokenReviews', fault)
    const attempt = rig.connect({ token: fresh() })
    await api.requested('tokenReviews', api.counts.tokenReviews + 1)
    await clock.advanceAsync(DEADLINE_MS)
    const outcome = await attempt
    t.ok(isRetryable(outcome), name)
    t.equal(codeOf(outcome), 'review_unavailable', name)
    api.clearFaults()
    t.equal(end(await rig.connect({ token: fresh() })), 'ok', `${name} leaves nothing behind`)
  }
  t.equal(rig.gateway.handshakes.length, Object.keys(faults).length)
})

test('a slow answer within the deadline is an answer', async (t) => {
  const rig = await start(t)
  rig.api.setFault('tokenReviews', { kind: 'delay', ms: 1000 }, { times: 1 })
  const attempt = rig.connect({ token: rig.fresh() })
  await rig.api.requested('tokenReviews', 1)
  // The API server arms its delay some turns after it has counted the request.
  for (let n = 0; n < 20; n += 1) await rig.clock.advanceAsync(50)
  t.equal(end(await attempt), 'ok')
})

test('many workers recover from an outage of 200 ms within 2 s', async (t) => {
  const rig = await start(t)
  const { api, clock, fresh } = rig
  const token = fresh()
  api.setFault('tokenReviews', { kind: 'reset' })
  const codes = new Set<string>()
  for (let n = 0; n < 10; n += 1) {
    codes.add(codeOf(await rig.connect({ token: n === 0 ? token : fresh() })))
    await clock.advanceAsync(20)
  }
  t.strictSame([...codes], ['review_unavailable'])
  t.equal(api.counts.tokenReviews, 10, 'after five failures the API server is spared')
  api.clearFaults()
  await clock.advanceAsync(1000)
  t.equal(end(await rig.connect({ token })), 'ok', 'the fault was not remembered')
})

test('a refusal of our own credential is our fault, is counted and logged, and ends with a new token file', async (t) => {
  const rig = await start(t)
  const { api, clock, fresh, tokenFile } = rig
  const errors = async () =>
    (await rig.metrics()).get('openclaw_k8s_own_credential_errors_total') ?? Number.NaN
  const logged = () => rig.log.filter((line) => line.includes("to the sidecar's own credential"))
  const stream = await open(rig)

  api.setRbac({ tokenReviews: false })
  const forbidden = await rig.connect({ token: fresh() })
  t.ok(isRetryable(forbidden), '403')
  t.equal(codeOf(forbidden), 'own_credential_refused')
  const afterForbidden = await errors()
  t.ok(afterForbidden >= 1)
  api.setRbac({ tokenReviews: true })
  t.equal(end(await rig.connect({ token: fresh() })), 'ok')

  api.revokeSidecarToken()
  const unauthorized = await rig.connect({ token: fresh() })
  t.ok(isRetryable(unauthorized), '401')
  t.equal(codeOf(unauthorized), 'own_credential_refused')
  t.ok((await errors()) > afterForbidden)
  t.equal(logged().length, 1, 'one line, however often it happens')
  t.match(logged()[0], /answered 403 .* at \/apis\/authentication.*lacks this right/)
  await writeFile(tokenFile, api.sidecarToken())
  t.equal(end(await rig.connect({ token: fresh() })), 'ok', 'no restart, no wait')

  stream.send('echo')
  t.equal((await nextMessage(stream)).text, 'echo')
  stream.terminate()
  t.equal(clock.monotonic() < 100, true)
})

test('an outage is visible as such in metrics and audit', async (t) => {
  const rig = await start(t)
  rig.api.setFault('tokenReviews', { kind: 'status', status: 500 })
  await rig.connect({ token: rig.fresh() })
  const metrics = await rig.metrics()
  const value = (name: string) => metrics.get(`openclaw_k8s_${name}`)
  t.equal(value('auth_failures_total{kind="fault",code="review_unavailable"}'), 1)
  t.equal(value('token_review_duration_seconds_count{outcome="fault"}'), 1)
  await rig.clock.advanceAsync(1000)
  t.match(
    rig.audit.filter(({ event }) => event === 'k8s-auth-failed'),
    [
      {
        count: 1,
        code: 'review_unavailable',
        podUid: rig.pod.metadata.uid,
        remoteIp: '127.0.0.11',
      },
    ],
  )
})
