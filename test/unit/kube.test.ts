/** Our side of the API server: bounded requests, keys that are fetched sparingly, a credential that rotates. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { test, type Test } from 'tap'
import { nameOf, targetOf } from '@openclaw-k8s/auth-sidecar/kube/api-server.ts'
import { Breaker } from '@openclaw-k8s/auth-sidecar/kube/breaker.ts'
import {
  KubeClient,
  OwnCredentialRefused,
  type KubeRequest,
} from '@openclaw-k8s/auth-sidecar/kube/client.ts'
import { locateApiServer } from '@openclaw-k8s/auth-sidecar/kube/in-cluster.ts'
import { Jwks, type JwksOptions } from '@openclaw-k8s/auth-sidecar/kube/jwks.ts'
import { OwnCredentials } from '@openclaw-k8s/auth-sidecar/kube/own-credentials.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import type { ApiFault } from '../kit/kube-faults.ts'
import { encodeToken } from '../kit/kube-tokens.ts'

const DEADLINE_MS = 3000
const VERSION: KubeRequest = { method: 'GET', path: '/version', deadlineMs: DEADLINE_MS }

type Limits = { concurrency?: number; queue?: number; queueMs?: number; turnMs?: number }

const startClient = async (t: Test, limits: Limits = {}) => {
  const clock = new FakeClock()
  const directory = await mkdtemp(join(tmpdir(), 'auth-sidecar-'))
  const api = await startKubeApi({ clock })
  const { caFile, tokenFile } = await api.files(directory)
  const refusals: number[] = []
  const client = new KubeClient({
    apiServer: new URL(api.url),
    credentials: new OwnCredentials({
      tokenFile,
      caFile,
      clock,
      readFile: (path) => readFileSync(path, 'utf8'),
    }),
    clock,
    concurrency: 4,
    queue: 8,
    ...limits,
    faultCode: 'review_unavailable',
    onOwnCredentialRefused: (status) => void refusals.push(status),
  })
  t.teardown(async () => {
    await client.close()
    await api.stop()
    await rm(directory, { recursive: true })
  })
  return { api, client, clock, refusals, tokenFile, caFile }
}

/** Runs the clock until the request ends; returns how it ended and how long that took. */
const settle = async (clock: FakeClock, work: Promise<unknown>) => {
  const startedAt = clock.monotonic()
  const outcome: { value?: unknown; error?: unknown } = {}
  let isDone = false
  const done = work
    .then(
      (value) => Object.assign(outcome, { value }),
      (error: unknown) => Object.assign(outcome, { error }),
    )
    .finally(() => {
      isDone = true
    })
  const isPending = () => !isDone
  for (let n = 0; isPending() && n < 100_000; n += 1) {
    // Release time to real I/O: time passes only while nothing else happens for a few turns.
    await clock.advanceAsync(n % 20 === 19 ? 50 : 0)
  }
  await done
  return { ...outcome, ms: clock.monotonic() - startedAt }
}

test('every way to misbehave is a fault within the deadline, never an answer', async (t) => {
  const faults: Readonly<Record<string, ApiFault>> = {
    hang: { kind: 'hang' },
    'half a body, then nothing': { kind: 'halfBody', ending: 'stall' },
    'half a body, then a cut': { kind: 'halfBody', ending: 'cut' },
    reset: { kind: 'reset' },
    garbage: { kind: 'garbage' },
    429: { kind: 'status', status: 429, headers: { 'retry-after': '1' } },
    500: { kind: 'status', status: 500, body: { kind: 'Status' } },
    503: { kind: 'status', status: 503, body: 'upstream' },
    302: { kind: 'status', status: 302, headers: { location: 'https://evil.example/' } },
    'too slow': { kind: 'delay', ms: DEADLINE_MS + 1 },
  }
  const { api, client, clock } = await startClient(t)
  for (const [name, fault] of Object.entries(faults)) {
    api.setFault('version', fault)
    const before = api.counts.version
    const { error, ms } = await settle(clock, client.request(VERSION))
    t.match(error, { name: 'Fault', code: 'review_unavailable' }, name)
    t.ok(ms <= DEADLINE_MS, `${name} within the deadline`)
    t.equal(api.counts.version - before, 2, `${name} is tried twice`)
    api.clearFaults()
    const healed = await settle(clock, client.request(VERSION))
    t.match(healed.value, { status: 200 }, `${name} is over`)
  }
})

test('the second try uses a new connection', async (t) => {
  const { api, client } = await startClient(t, { concurrency: 1 })
  await client.request(VERSION)
  await client.request(VERSION)
  const [first, second] = api.requests.map(({ remotePort }) => remotePort)
  t.equal(first, second, 'a good connection is kept')
  api.setFault('version', { kind: 'garbage' }, { times: 1 })
  t.match(await client.request(VERSION), { status: 200 })
  const [, , third, fourth] = api.requests.map(({ remotePort }) => remotePort)
  t.not(third, fourth)
})

test('a connection that died in the meantime does not cost the request', async (t) => {
  const { api, client } = await startClient(t)
  await client.request(VERSION)
  api.dropConnections()
  t.match(await client.request(VERSION), { status: 200 })
})

test('an answer that is too long is refused without a second try, and opens no circuit', async (t) => {
  const { api, client } = await startClient(t)
  const body = { padding: 'x'.repeat(17 * 1024 * 1024) }
  api.setFault('version', { kind: 'status', status: 200, body })
  for (let n = 1; n <= 6; n += 1) {
    await t.rejects(client.request(VERSION), { name: 'Fault', message: /exceeds 16777216 bytes/ })
    t.equal(api.counts.version, n)
  }
  api.clearFaults()
  t.match(await client.request(VERSION), { status: 200 })
})

test('where requests have a turn, slow ones hold up no other, and open no circuit', async (t) => {
  const { api, client, clock } = await startClient(t, { concurrency: 2, queue: 99, turnMs: 500 })
  api.setFault('discovery', { kind: 'hang' })
  const slow = Array.from({ length: 8 }, () =>
    client.request({ ...VERSION, path: '/.well-known/openid-configuration' }).catch(() => 'late'),
  )
  await api.requested('discovery', 2)
  const { value, ms } = await settle(clock, client.request(VERSION))
  t.match(value, { status: 200 })
  t.ok(ms <= 4 * 500 + 100, 'after the turns of those before it')
  const all = await settle(clock, Promise.all(slow))
  t.ok((all.value as string[]).every((each) => each === 'late'))
  t.match((await settle(clock, client.request(VERSION))).value, { status: 200 })
})

test('a 404 is an answer', async (t) => {
  const { client } = await startClient(t)
  t.match(await client.request({ ...VERSION, path: '/nothing' }), { status: 404 })
})

test('the requests under way and the waiting requests are limited', async (t) => {
  const { api, client, clock } = await startClient(t, { concurrency: 2, queue: 3 })
  api.pause('version')
  const waiting = Array.from({ length: 5 }, () => client.request(VERSION))
  const results = Promise.allSettled(waiting)
  await api.arrived('version')
  await api.arrived('version')
  await t.rejects(client.request(VERSION), {
    code: 'review_unavailable',
    message: /too many requests are waiting/,
  })
  t.equal(api.counts.version, 2)
  api.release('version')
  t.strictSame(new Set((await results).map(({ status }) => status)), new Set(['fulfilled']))
  t.equal(api.counts.version, 5)
  t.equal(clock.pending, 0, 'no deadline is left behind')
})

test('a caller that waits in vain gets a fault at its deadline, and does not open the breaker', async (t) => {
  const { api, client, clock } = await startClient(t, { concurrency: 1, queue: 8 })
  api.pause('version')
  const first = client.request(VERSION)
  await api.arrived('version')
  const waiting = Array.from({ length: 8 }, () => client.request({ ...VERSION, deadlineMs: 500 }))
  const results = Promise.allSettled(waiting)
  await clock.advanceAsync(500)
  t.strictSame(new Set((await results).map(({ status }) => status)), new Set(['rejected']))
  api.release('version')
  t.match(await first, { status: 200 })
  t.match(await client.request(VERSION), { status: 200 })
  t.equal(api.counts.version, 2, 'nobody is asked on behalf of those who are gone')
})

test('a caller that gets a place after a wait has its whole deadline, and does not wait for ever', async (t) => {
  const limits = { concurrency: 1, queue: 8, queueMs: 10_000 }
  const { api, client, clock } = await startClient(t, limits)
  api.pause('version')
  const first = client.request({ ...VERSION, deadlineMs: 9000 })
  await api.arrived('version')
  const second = client.request({ ...VERSION, deadlineMs: 500 })
  const third = client.request({ ...VERSION, deadlineMs: 500 })
  await clock.advanceAsync(5000)
  api.release('version')
  t.match(await first, { status: 200 })
  t.match(await second, { status: 200 }, 'ten times its deadline has passed')
  t.match(await third, { status: 200 })
  t.equal(api.counts.version, 3, 'each was asked once')

  api.setFault('version', { kind: 'hang' })
  const hanging = Array.from({ length: 4 }, () => client.request({ ...VERSION, deadlineMs: 4000 }))
  const results = Promise.allSettled(hanging)
  await settle(clock, results)
  const asked = api.counts.version
  t.ok((await results).every(({ status }) => status === 'rejected'))
  t.equal(asked, 3 + 2 * 3, 'the last one waited in vain')
})

test('an API server that fails again and again is spared, then asked once, then trusted', async (t) => {
  const { api, client, clock } = await startClient(t)
  api.setFault('version', { kind: 'reset' })
  for (let n = 0; n < 5; n += 1) await t.rejects(client.request(VERSION))
  const asked = api.counts.version
  await t.rejects(client.request(VERSION), {
    message: /circuit open after repeated failures/,
    code: 'review_unavailable',
  })
  t.equal(api.counts.version, asked, 'it is not asked while the breaker is open')
  clock.stepWall(-3_600_000)
  clock.advance(1000)
  await t.rejects(client.request(VERSION))
  t.equal(api.counts.version, asked + 2, 'one request, with its second try')
  api.clearFaults()
  clock.advance(1000)
  t.match(await client.request(VERSION), { status: 200 })
  t.match(await client.request(VERSION), { status: 200 })
})

test('a long queue that fails all at once does not block the event loop', async (t) => {
  const { api, client } = await startClient(t, { concurrency: 2, queue: 400, queueMs: 60_000 })
  api.setFault('version', { kind: 'reset' })
  const failures = { count: 0, atOnceMax: 0 }
  const line = Array.from({ length: 400 }, () =>
    client.request(VERSION).catch(() => void (failures.count += 1)),
  )
  for (let before = 0; failures.count < 400; before = failures.count) {
    await turn()
    failures.atOnceMax = Math.max(failures.atOnceMax, failures.count - before)
  }
  await Promise.all(line)
  t.ok(failures.atOnceMax <= 4, `${failures.atOnceMax} at once`)
})

test('while the breaker tries one request, it holds the others back', async (t) => {
  const clock = new FakeClock()
  const isFailure = (error: unknown) => error instanceof RangeError
  const breaker = new Breaker({ clock, failuresMax: 2, openMs: 100, isFailure })
  const fail = async () => Promise.reject(new RangeError('down'))
  const answer = async () => Promise.reject(new TypeError('no'))
  await t.rejects(breaker.run(fail))
  await t.rejects(breaker.run(answer), TypeError, 'an answer ends a row of failures')
  await t.rejects(breaker.run(fail))
  await t.rejects(breaker.run(fail), RangeError)
  await t.rejects(breaker.run(fail), /circuit open after repeated failures/)
  clock.advance(100)
  const held = Promise.withResolvers<string>()
  const probe = breaker.run(() => held.promise)
  await t.rejects(breaker.run(fail), /circuit open after repeated failures/)
  held.resolve('up')
  t.equal(await probe, 'up')
  t.equal(await breaker.run(async () => 'again'), 'again')
})

test('a refusal of our own credential is recognized, and a rotated one is used at once', async (t) => {
  const { api, client, refusals, tokenFile } = await startClient(t)
  const list = { ...VERSION, path: '/api/v1/namespaces/openclaw/pods' }
  t.match(await client.request(list), { status: 200 })
  api.revokeSidecarToken()
  const before = api.counts.lists
  await t.rejects(client.request(list), { code: 'own_credential_refused' })
  t.equal(api.counts.lists - before, 1, 'a second try with the same token does not help')
  t.strictSame(refusals, [401])
  await writeFile(tokenFile, `${api.sidecarToken()}\n`)
  t.match(await client.request(list), { status: 200 })
  t.strictSame(refusals, [401], 'the caller does not notice the rotation')
  api.setRbac({ pods: false })
  await t.rejects(client.request(list), { code: 'own_credential_refused' })
  t.strictSame(refusals, [401, 403])
  t.notMatch(String(refusals), /Bearer/)
})

test('a new CA of the API server is picked up from its file', async (t) => {
  const { api, client, clock, caFile } = await startClient(t)
  t.match(await client.request(VERSION), { status: 200 })
  await api.rotateAuthority()
  api.dropConnections()
  await t.rejects(client.request(VERSION), { code: 'review_unavailable' }, 'it is not trusted yet')
  await writeFile(caFile, api.ca())
  clock.advance(10_000)
  t.match(await client.request(VERSION), { status: 200 })
})

test('our files are read again every 10 s, and the last content of a missing file is kept', async (t) => {
  const clock = new FakeClock()
  const files = new Map([
    ['token', ' one\n'],
    ['ca', 'ca-1'],
  ])
  const credentials = new OwnCredentials({
    tokenFile: 'token',
    caFile: 'ca',
    clock,
    readFile: (path) => {
      const text = files.get(path)
      if (text === undefined) throw new Error('ENOENT')
      return text
    },
  })
  t.equal(credentials.token, 'one')
  files.set('token', 'two')
  clock.advance(9999)
  t.equal(credentials.token, 'one')
  clock.advance(1)
  t.equal(credentials.token, 'two')
  files.delete('token')
  files.set('ca', 'ca-2')
  t.equal(credentials.reread(), false)
  t.strictSame([credentials.token, credentials.ca], ['two', 'ca-2'])
  files.set('token', 'three')
  t.equal(credentials.reread(), true)
  t.equal(credentials.expiresAt, undefined, 'this token names no time')
  files.set(
    'token',
    encodeToken({ alg: 'none' }, { exp: 1234 }, () => Buffer.from('x')),
  )
  credentials.reread()
  t.equal(credentials.expiresAt, 1234)
})

test("the API server's address comes from the configuration or the pod", async (t) => {
  const inCluster = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT_HTTPS: '6443' }
  t.equal(locateApiServer({}, inCluster).apiServer.href, 'https://[fd00::1]:6443/')
  t.equal(
    locateApiServer({}, { KUBERNETES_SERVICE_HOST: '10.0.0.1' }).apiServer.href,
    'https://10.0.0.1/',
  )
  const named = { apiServer: 'https://api:1', caFile: '/ca', tokenFile: '/token' }
  t.match(locateApiServer(named, inCluster), { caFile: '/ca', tokenFile: '/token' })
  t.equal(locateApiServer(named, inCluster).apiServer.host, 'api:1')
  t.throws(() => locateApiServer({}, {}), /KUBERNETES_SERVICE_HOST is missing/)
})

test('a path in the URL of the API server comes before the path of a request, once', async (t) => {
  const served = (url: string) => {
    const apiServer = new URL(url)
    return [targetOf(apiServer, '/version'), nameOf(apiServer)]
  }
  const origin = 'https://proxy:8443'
  for (const url of [`${origin}/k8s/c-1`, `${origin}/k8s/c-1/`, `${origin}/k8s/c-1//`]) {
    t.strictSame(served(url), [{ origin, path: '/k8s/c-1/version' }, `${origin}/k8s/c-1`])
  }
  t.strictSame(served(origin), [{ origin, path: '/version' }, origin])
})

const ISSUER = 'https://issuer.example'
type Answer = { readonly status: number; readonly body: unknown }
type JwksChanges = Partial<Pick<JwksOptions, 'isIssuerConfigured' | 'onIssuerChanged'>>
const startJwks = ({
  isIssuerConfigured = false,
  onIssuerChanged = () => {},
}: JwksChanges = {}) => {
  const clock = new FakeClock()
  const paths: string[] = []
  const outcomes: string[] = []
  const state = {
    isDown: false,
    issuer: ISSUER as unknown,
    keys: { keys: [{ kty: 'RSA', kid: '1' }] } as unknown,
    status: 200,
    /** What a path answers instead. */
    instead: new Map<string, Answer | Error>(),
    /** What the answer of a path waits for. */
    held: new Map<string, Promise<void>>(),
  }
  const jwks = new Jwks({
    client: {
      request: async ({ path }) => {
        paths.push(path)
        await Promise.resolve()
        if (state.isDown) throw new Error('down')
        const instead = state.instead.get(path)
        if (instead instanceof Error) throw instead
        if (instead !== undefined) return instead
        const held = state.held.get(path)
        if (held !== undefined) await held
        const body = path.includes('openid-configuration')
          ? { issuer: state.issuer, jwks_uri: 'https://evil.example/keys' }
          : state.keys
        return { status: state.status, body }
      },
    },
    clock,
    random: () => 1,
    isIssuerConfigured,
    onIssuerChanged,
    onReviewOnly: (isReviewOnly) => void outcomes.push(isReviewOnly ? 'review-only' : 'keys'),
    cooldownMs: 30_000,
    refreshMs: 300_000,
    staleAfterMs: 600_000,
    deadlineMs: 5000,
    onFetched: () => void outcomes.push('ok'),
    onFailed: () => void outcomes.push('failed'),
    onIssuerAsked: (error) => void (error === undefined || outcomes.push('issuer failed')),
  })
  return { clock, paths, outcomes, state, jwks }
}

test('keys come from the API server itself, whatever host the discovery names', async (t) => {
  const { jwks, paths } = startJwks()
  await jwks.load()
  t.strictSame(paths, ['/.well-known/openid-configuration', '/openid/v1/jwks'])
  t.equal(jwks.issuer, ISSUER)
  t.type(jwks.current(), 'function')
})

test('keys are fetched once per cooldown, however many callers ask', async (t) => {
  const { jwks, outcomes, clock } = startJwks()
  const all = await Promise.all(Array.from({ length: 100 }, () => jwks.refresh()))
  t.strictSame(new Set(all), new Set(['refreshed']), 'they share the fetch')
  clock.advance(29_999)
  t.equal(await jwks.refresh(), 'cooldown')
  clock.advance(1)
  t.equal(await jwks.refresh(), 'refreshed')
  t.strictSame(outcomes, ['ok', 'ok'])
})

test('keys that cannot be fetched again serve for 10 minutes, then there are none', async (t) => {
  const { jwks, clock, state } = startJwks()
  await jwks.load()
  state.isDown = true
  clock.advance(599_999)
  t.equal(await jwks.refresh(), 'failed')
  t.type(jwks.current(), 'function')
  t.equal(jwks.ageMs, 599_999)
  clock.advance(1)
  t.equal(jwks.current(), undefined)
  t.equal(jwks.issuer, ISSUER, 'the issuer only refuses, and stays')
})

test('keys are refreshed periodically, sooner after a failure', async (t) => {
  const { jwks, clock, outcomes, state } = startJwks()
  await jwks.start()
  await clock.advanceAsync(300_000)
  t.strictSame(outcomes, ['ok', 'ok'])
  state.isDown = true
  await clock.advanceAsync(300_000)
  state.isDown = false
  await clock.advanceAsync(30_000)
  t.strictSame(outcomes, ['ok', 'ok', 'failed', 'issuer failed', 'ok'])
  jwks.stop()
  t.equal(clock.pending, 0)
})

test('an invalid document leaves the old keys in place', async (t) => {
  const { jwks, clock, state } = startJwks()
  await jwks.refresh()
  const before = jwks.current()
  const { keys } = state
  const spoil = [{ keys: { keys: 'x' } }, { keys: null }, { keys: {} }, { keys: { keys: [] } }]
  for (const change of spoil) {
    Object.assign(state, { issuer: ISSUER, keys, status: 200 }, change)
    clock.advance(30_000)
    t.equal(await jwks.refresh(), 'failed', JSON.stringify(change))
    t.equal(jwks.current(), before)
  }
})

test('a key set without a key that signs tokens is the answer that there are none', async (t) => {
  for (const keys of [[], [{ kty: 'oct', k: 'AA' }], [{ kty: 'OKP' }], [{}]]) {
    const { jwks, state } = startJwks()
    state.keys = { keys }
    t.equal(await jwks.refresh(), 'failed', JSON.stringify(keys))
    t.strictSame([jwks.current(), jwks.ageMs, jwks.isReviewOnly], [undefined, undefined, true])
  }
  const { jwks, state } = startJwks()
  state.keys = { keys: [{}, { kty: 'EC' }] }
  t.equal(await jwks.refresh(), 'refreshed')
})

const KEYS = '/openid/v1/jwks'
const DISCOVERY = '/.well-known/openid-configuration'
const gone = { status: 404, body: undefined }

test("with configured issuers nobody asks for the cluster's own", async (t) => {
  const { jwks, paths, state } = startJwks({ isIssuerConfigured: true })
  state.instead.set(DISCOVERY, gone)
  t.equal(await jwks.refresh(), 'refreshed')
  t.strictSame(paths, [KEYS])
  t.strictSame([jwks.issuer, typeof jwks.current()], [undefined, 'function'])
})

test('a new issuer is the first, the earlier ones are kept, and a change is told once', async (t) => {
  const changes: (readonly string[])[] = []
  const onIssuerChanged = (issuers: readonly string[]) => void changes.push(issuers)
  const { jwks, state, clock } = startJwks({ onIssuerChanged })
  t.equal(await jwks.renewIssuer('x'), 'renewed')
  t.equal(
    await jwks.renewIssuer('y'),
    'cooldown',
    'the cluster was asked just now, but not for this one',
  )
  for (const issuer of ['b', 'b', 'c', 'd', 'e', 'c']) {
    state.issuer = issuer
    clock.advance(30_000)
    t.equal(await jwks.renewIssuer(issuer), 'renewed')
  }
  t.strictSame(jwks.issuers, ['c', 'e', 'd', 'b'])
  t.equal(jwks.issuer, 'c')
  t.strictSame(changes[0], ['b', ISSUER])
  t.equal(changes.length, 5)
  const configured = startJwks({ isIssuerConfigured: true })
  t.equal(await configured.jwks.renewIssuer('x'), 'unchanged')
  t.strictSame(configured.paths, [], 'an issuer that is configured is not asked for')
})

test('an issuer is foreign only by an answer that was asked for it, once a cooldown', async (t) => {
  const { jwks, state, clock, paths } = startJwks()
  t.equal(await jwks.renewIssuer('x'), 'renewed')
  const asked = paths.length
  clock.advance(29_999)
  t.equal(await jwks.renewIssuer('x'), 'cooldown', 'the cluster may have it by now')
  t.equal(paths.length, asked, 'one that is foreign is not looked for again and again')
  clock.advance(1)
  state.issuer = 'x'
  t.equal(await jwks.renewIssuer('x'), 'renewed')
  t.strictSame(jwks.issuers, ['x', ISSUER])
  for (const instead of [new Error('timeout'), { status: 500, body: '' }, gone]) {
    clock.advance(30_000)
    state.instead.set(DISCOVERY, instead)
    t.equal(await jwks.renewIssuer('y'), 'failed', 'nobody could say')
    t.equal(await jwks.renewIssuer('y'), 'cooldown')
  }
  clock.advance(30_000)
  state.instead.clear()
  state.instead.set(KEYS, new Error('timeout'))
  t.equal(await jwks.renewIssuer('y'), 'renewed', 'the keys do not matter here')
})

const hold = () => {
  let release = () => {}
  const answer = new Promise<void>((resolve) => void (release = resolve))
  return { answer, release: () => release() }
}

test('an answer about the issuer that was asked for earlier may let in, and never refuses', async (t) => {
  const { jwks, state, clock } = startJwks()
  const { answer, release } = hold()
  state.held.set(DISCOVERY, answer)
  const first = jwks.renewIssuer('garbage')
  clock.advance(1)
  const joined = ['new', ISSUER].map((issuer) => jwks.renewIssuer(issuer))
  release()
  t.equal(await first, 'renewed')
  t.strictSame(await Promise.all(joined), ['cooldown', 'renewed'])
  state.issuer = 'new'
  clock.advance(29_998)
  t.equal(await jwks.renewIssuer('new'), 'cooldown', 'nor is it remembered')
  clock.advance(1)
  t.equal(await jwks.renewIssuer('new'), 'renewed')
  t.strictSame(jwks.issuers, ['new', ISSUER])
})

test('a fetch of the keys that began earlier never proves that a key is unknown', async (t) => {
  const { jwks, state, clock, paths } = startJwks()
  const { answer, release } = hold()
  state.held.set(KEYS, answer)
  const first = jwks.refresh()
  clock.advance(1)
  const joined = jwks.refresh()
  release()
  t.equal(await first, 'refreshed')
  t.equal(await joined, 'cooldown')
  t.equal(paths.filter((path) => path === KEYS).length, 1, 'they share it all the same')
})

test('keys do not wait for an issuer that hangs, and one question for it is enough', async (t) => {
  const { jwks, state, clock, paths } = startJwks()
  const { answer, release } = hold()
  state.held.set(DISCOVERY, answer)
  const started = jwks.start()
  for (const _ of [1, 2]) {
    t.equal(await jwks.refresh(), 'refreshed')
    clock.advance(29_999)
    t.equal(await jwks.refresh(), 'cooldown')
    clock.advance(1)
  }
  t.equal(paths.filter((path) => path === DISCOVERY).length, 1)
  release()
  await started
  t.equal(jwks.issuer, ISSUER)
  jwks.stop()
})

test('no issuer is absent but by an answer, and for as long as keys serve', async (t) => {
  for (const absent of [gone, new OwnCredentialRefused(403, DISCOVERY)]) {
    const { jwks, state, clock } = startJwks()
    state.instead.set(DISCOVERY, new Error('timeout'))
    await jwks.load()
    t.equal(jwks.isIssuerAbsent, false)
    state.instead.set(DISCOVERY, absent)
    await jwks.load()
    t.equal(jwks.isIssuerAbsent, true)
    state.instead.set(DISCOVERY, { status: 500, body: undefined })
    clock.advance(599_999)
    await jwks.load()
    t.equal(jwks.isIssuerAbsent, true, 'an outage takes back no answer')
    clock.advance(1)
    t.equal(jwks.isIssuerAbsent, false)
    state.instead.clear()
    await jwks.load()
    state.instead.set(DISCOVERY, absent)
    await jwks.load()
    t.equal(jwks.isIssuerAbsent, false, 'an issuer that was named stays')
  }
})

test('keys are good without a discovery document, whether there is none or it is out of reach', async (t) => {
  for (const absent of [gone, new OwnCredentialRefused(403, DISCOVERY)]) {
    const { jwks, state } = startJwks()
    state.instead.set(DISCOVERY, absent)
    t.equal(await jwks.refresh(), 'refreshed')
    t.strictSame([jwks.issuer, typeof jwks.current()], [undefined, 'function'])
  }
  const unknowns = [
    new OwnCredentialRefused(401, DISCOVERY),
    new Error('timeout'),
    { status: 500, body: undefined },
    { status: 200, body: { issuer: '' } },
    { status: 200, body: {} },
  ]
  for (const unknown of unknowns) {
    const { jwks, state, clock, outcomes } = startJwks()
    state.instead.set(DISCOVERY, unknown)
    await jwks.start()
    t.strictSame([jwks.issuer, typeof jwks.current()], [undefined, 'function'], 'at the start')
    t.strictSame(outcomes.splice(0), ['ok', 'issuer failed'])
    state.instead.clear()
    await clock.advanceAsync(30_000)
    t.equal(jwks.issuer, ISSUER, 'it is asked for again after the cooldown')
    state.instead.set(DISCOVERY, unknown)
    await clock.advanceAsync(300_000)
    t.strictSame([jwks.issuer, jwks.ageMs], [ISSUER, 0], 'later it does not age the keys')
    jwks.stop()
  }
})

test('only an answer that there are no keys begins review-only mode, and keys end it', async (t) => {
  for (const silent of [new OwnCredentialRefused(401, KEYS), new Error('timeout')]) {
    const { jwks, state } = startJwks()
    state.instead.set(KEYS, silent)
    await jwks.refresh()
    t.equal(jwks.isReviewOnly, false)
  }
  for (const absent of [gone, new OwnCredentialRefused(403, KEYS)]) {
    const { jwks, clock, outcomes, state } = startJwks()
    state.instead.set(KEYS, absent)
    await jwks.start()
    t.equal(jwks.isReviewOnly, true)
    t.equal(jwks.current(), undefined)
    await clock.advanceAsync(60_000)
    t.strictSame(new Set(outcomes.slice(1)), new Set(['failed']), 'told once, still retried')
    t.ok(outcomes.length < 12)
    outcomes.length = 0
    state.instead.clear()
    await clock.advanceAsync(30_000)
    t.strictSame(outcomes, ['keys', 'ok'])
    t.equal(jwks.isReviewOnly, false)
    jwks.stop()
  }
})

test('keys that were fetched serve as long as ever where the API server has none any more', async (t) => {
  const { jwks, clock, state, outcomes } = startJwks()
  await jwks.start()
  state.instead.set(KEYS, gone)
  await clock.advanceAsync(599_999)
  t.equal(jwks.isReviewOnly, false)
  t.ok(outcomes.includes('failed'))
  t.notOk(outcomes.includes('review-only'), 'the mode is not told before it begins')
  await clock.advanceAsync(30_000)
  t.equal(jwks.isReviewOnly, true)
  t.equal(outcomes.filter((outcome) => outcome === 'review-only').length, 1)
  jwks.stop()
})

test('at the start keys are asked for again at once, and then ever less often', async (t) => {
  const { jwks, clock, outcomes, state } = startJwks()
  state.isDown = true
  const started = jwks.start()
  await started
  await clock.advanceAsync(3000)
  state.isDown = false
  await clock.advanceAsync(2000)
  const fetches = outcomes.filter((outcome) => outcome !== 'issuer failed')
  t.equal(fetches.at(-1), 'ok', 'an outage of 3 s costs at most twice as much')
  t.ok(fetches.length <= 7)
  jwks.stop()
})

test('an early 403 for the keys does not end the quick retries of the start', async (t) => {
  for (const early of [new OwnCredentialRefused(403, KEYS), gone]) {
    const { jwks, clock, state } = startJwks()
    state.instead.set(KEYS, early)
    await jwks.start()
    await clock.advanceAsync(3000)
    t.equal(jwks.isReviewOnly, true)
    state.instead.clear()
    await clock.advanceAsync(3000)
    t.type(jwks.current(), 'function')
    t.equal(jwks.isReviewOnly, false)
    jwks.stop()
  }
})
