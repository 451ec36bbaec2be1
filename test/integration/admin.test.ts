/** The admin port answers probes and scrapes, and nothing that a worker could use. */

import tap, { test } from 'tap'
import { CODES } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'

const rig = await startRig()
tap.teardown(() => rig.stop())
const pod = rig.createPod()

const get = async (path: string, init: RequestInit = {}) => {
  const response = await fetch(`${rig.adminUrl}${path}`, init)
  const type = response.headers.get('content-type') ?? ''
  return { status: response.status, type, text: await response.text() }
}

test('metrics are served in the text format, every code from 0', async (t) => {
  const { status, type, text } = await get('/metrics')
  t.equal(status, 200)
  t.match(type, /^text\/plain; version=0\.0\.4/)
  t.match(text, /^openclaw_k8s_auth_attempts_total\{result="success"\} 0$/m)
  t.match(text, /^openclaw_k8s_sessions_active\{namespace="openclaw"\} 0$/m)
  for (const [code, { kind }] of Object.entries(CODES)) {
    const series = `openclaw_k8s_auth_failures_total{kind="${kind}",code="${code}"} 0`
    t.ok(text.split('\n').includes(series), series)
  }
})

test('a session is counted while it is open', async (t) => {
  const series = 'openclaw_k8s_sessions_active{namespace="openclaw"}'
  const worker = await rig.connect({ token: rig.mint({ pod }) })
  if (!worker.ok) throw new Error('refused')
  t.equal((await rig.metrics()).get(series), 1)
  t.equal((await rig.metrics()).get('openclaw_k8s_auth_attempts_total{result="success"}'), 1)
  worker.socket.terminate()
  await waitUntil(async () => (await rig.metrics()).get(series) === 0)
})

test('probes distinguish liveness from readiness, and readiness lists its checks', async (t) => {
  await waitUntil(async () => (await get('/readyz')).status === 200)
  t.same(await get('/livez'), { status: 200, type: 'text/plain', text: 'ok\n' })
  t.equal((await get('/readyz')).text, 'ok\n')
  const { text } = await get('/readyz?verbose')
  for (const name of ['serving', 'jwks', 'gateway']) t.match(text, `[+] ${name} ok\n`)
})

test('version and assertion keys are public, and private parts are not among them', async (t) => {
  t.same(JSON.parse((await get('/version')).text), { version: 'test' })
  const { keys } = JSON.parse((await get('/.well-known/jwks.json')).text) as {
    keys: Record<string, unknown>[]
  }
  t.equal(keys.length, 1)
  t.same(Object.keys(keys[0] ?? {}).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x'])
  t.match(keys[0], { kty: 'OKP', crv: 'Ed25519', alg: 'EdDSA', use: 'sig' })
})

test('no other route, method or upgrade is answered, and no worker enters here', async (t) => {
  for (const path of [
    '/index.html',
    '/debug',
    '/config',
    '/metrics/',
    '/livez/../metrics/x',
    '//metrics',
  ]) {
    t.equal((await get(path)).status, 404, path)
  }
  for (const method of ['POST', 'PUT', 'DELETE']) {
    t.equal((await get('/metrics', { method })).status, 404, method)
  }
  const answer = await rawUpgrade({
    port: Number(new URL(rig.adminUrl).port),
    localAddress: '127.0.0.11',
    lines: upgradeLines('/', [`Authorization: Bearer ${rig.mint({ pod })}`]),
  })
  t.not(answer.status, 101)
  answer.socket.destroy()
})

test('an API server that is gone does not make the sidecar unready, a gateway does', async (t) => {
  rig.api.setFault('*', { kind: 'status', status: 500 })
  t.equal((await get('/readyz')).status, 200)
  rig.api.clearFaults()
  const gone = await startRig()
  t.teardown(() => gone.stop())
  await gone.gateway.close()
  const response = await fetch(`${gone.adminUrl}/readyz`)
  t.equal(response.status, 503)
  t.match(
    await response.text(),
    /\[-\] gateway: nothing listens on 127\.0\.0\.1:\d+\. Start the gateway, /,
  )
  t.equal((await fetch(`${gone.adminUrl}/livez`)).status, 200, 'no reason to restart it')
})

test('each check of readiness is a metric, though nobody tries to get in', async (t) => {
  const other = await startRig()
  t.teardown(() => other.stop())
  const readiness = async () => {
    const metrics = await other.metrics()
    const checks = ['serving', 'jwks', 'pods', 'gateway']
    t.notOk(metrics.has('openclaw_k8s_ready{check="operator"}'), 'this protocol has none')
    return checks.map((check) => metrics.get(`openclaw_k8s_ready{check="${check}"}`))
  }
  await waitUntil(async () => (await fetch(`${other.adminUrl}/readyz`)).ok)
  t.strictSame(await readiness(), [1, 1, 1, 1])
  await other.gateway.close()
  t.strictSame(await readiness(), [1, 1, 1, 0])
})

test("the end of the sidecar's own token is a metric", async (t) => {
  const expiry = (await rig.metrics()).get('openclaw_k8s_own_token_expiry_timestamp_seconds')
  const [, payload = ''] = (await rig.readFile(rig.tokenFile)).split('.')
  const { exp } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { exp: number }
  t.equal(expiry, exp)
})
