/** The test kit itself: the stand-in API server answers as the real one did, and fails on demand. */

import { createPublicKey, verify } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile } from 'node:fs/promises'
import { request } from 'node:https'
import type { IncomingMessage } from 'node:http'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import type { Test } from 'tap'
import { WebSocketServer } from 'ws'
import { createAuthority } from '../kit/authority.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { startKubeApi } from '../kit/kube-api.ts'
import type { ReviewBody } from '../kit/kube-faults.ts'
import type { KubeApi, KubeApiOptions } from '../kit/kube-api.ts'
import { encodeToken, withBadSignature } from '../kit/kube-tokens.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { runUntil } from '../kit/run-clock.ts'
import {
  closed,
  connectInBand,
  connectWorker,
  nextMessage,
  openWorker,
} from '../kit/worker-client.ts'

const REVIEWS = '/apis/authentication.k8s.io/v1/tokenreviews'
const ACCESS = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews'
const PODS = '/api/v1/namespaces/lab/pods'
const SAMPLES = new URL('../kit/samples/tokenreview/', import.meta.url)
const ISSUER = 'https://127.0.0.1:6443'

type Call = { readonly method?: string; readonly token?: string; readonly body?: unknown }
type Reply = { readonly status: number; readonly type: string; readonly text: string }

const open = async (api: KubeApi, path: string, call: Call = {}): Promise<IncomingMessage> => {
  const sent = request(api.url + path, {
    agent: false,
    method: call.method ?? (call.body === undefined ? 'GET' : 'POST'),
    ca: api.ca(),
    headers: {
      'user-agent': 'curl/8.0',
      ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(call.token === undefined ? {} : { authorization: `Bearer ${call.token}` }),
    },
  })
  sent.end(call.body === undefined ? undefined : JSON.stringify(call.body))
  const [response] = (await once(sent, 'response')) as [IncomingMessage]
  return response
}

const call = async (api: KubeApi, path: string, how: Call = {}): Promise<Reply> => {
  const response = await open(api, path, how)
  const text = (await response.toArray()).join('')
  return { status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', text }
}

const review = async (api: KubeApi, token: string, audiences: readonly string[] = ['lab-aud']) => {
  const body = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: audiences.length === 0 ? { token } : { token, audiences },
  }
  const { status, text } = await call(api, REVIEWS, { token: api.sidecarToken(), body })
  return { code: status, ...(JSON.parse(text) as { spec: unknown; status: Status }) }
}

type Status = {
  readonly authenticated?: boolean
  readonly error?: string
  readonly audiences?: readonly string[]
  readonly user: { readonly username?: string; readonly extra?: Record<string, string[]> }
}

const start = async (test: Test, options: KubeApiOptions = {}) => {
  const clock = new FakeClock()
  const api = await startKubeApi({ algs: ['ES256'], clock, issuer: ISSUER, ...options })
  test.teardown(async () => api.stop())
  const pod = api.createPod({
    namespace: 'lab',
    name: 'agent-1',
    serviceAccount: 'agent',
    ips: ['127.0.0.2'],
    nodeName: 'lab-node-1',
  })
  return { api, clock, pod }
}

/** The lines of a watch, one at a time. */
const watchLines = async (api: KubeApi, query: string) => {
  const response = await open(api, `${PODS}?watch=1&${query}`, { token: api.sidecarToken() })
  const lines = createInterface({ input: response })[Symbol.asyncIterator]()
  const next = async () => {
    const { value, done } = (await lines.next()) as { value: string; done: boolean }
    if (done) return { type: 'END', object: { metadata: {} } } as WatchLine
    return JSON.parse(value) as WatchLine
  }
  return { next, response }
}

const asOther = (told: ReviewBody): ReviewBody => {
  told.status.user.username = 'system:serviceaccount:lab:other'
  return told
}

const gone = async (response: IncomingMessage): Promise<void> =>
  new Promise((resolve) => response.once('close', resolve))

type WatchLine = {
  readonly type: string
  readonly object: {
    readonly kind?: string
    readonly code?: number
    readonly metadata: {
      readonly name?: string
      readonly resourceVersion?: string
      readonly deletionTimestamp?: string
      readonly annotations?: Record<string, string>
    }
  }
}

type Sample = {
  readonly metadata: { readonly managedFields: readonly [{ readonly time: string }] }
  readonly spec: { readonly token: string; readonly audiences?: readonly string[] }
  readonly status: { readonly error?: string }
}

const CASES = [
  'valid',
  'two-audiences-one-matches',
  'default-audience',
  'unbound',
  'wrong-audience',
  'bad-signature',
  'garbage',
  'expired',
  'not-yet-valid',
  'deleted-pod',
]

t.test('a TokenReview is answered word for word as by kube-apiserver v1.35.4', async (test) => {
  for (const name of CASES) {
    const text = await readFile(new URL(`tr-${name}.json`, SAMPLES), 'utf8')
    const sample = JSON.parse(text) as Sample
    const { api, clock, pod } = await start(test)
    clock.stepWall(Date.parse(sample.metadata.managedFields[0].time) - clock.now())
    const account = api.getServiceAccount('lab', 'agent')
    // The claims of the sample with the uids this server has given to the same objects.
    const translate = (json: string) =>
      json
        .replaceAll('71b28844-46b1-4fbb-af33-cf8dd372c238', account?.metadata.uid ?? '')
        .replaceAll('56af1408-fcf6-4e19-97b2-8f65a7aa7b1d', pod.metadata.uid)
        .replaceAll('81b757cf-e26e-4560-adb7-eb08e4e6a3a4', api.nodeUid('lab-node-1'))
    const [, payload] = sample.spec.token.split('.')
    let { token } = sample.spec
    if (payload !== undefined) {
      const claims = translate(Buffer.from(payload, 'base64url').toString())
      token = api.mintToken({ pod, claims: JSON.parse(claims) as Record<string, unknown> })
    }
    if (name === 'bad-signature') token = withBadSignature(token, 0)
    const body = { spec: { ...sample.spec, token } }
    const answer = await call(api, REVIEWS, { token: api.sidecarToken(), body })
    test.equal(answer.status, 201, name)
    const expected = JSON.parse(translate(text)) as Sample
    test.strictSame(
      JSON.parse(answer.text),
      { ...expected, spec: { ...expected.spec, token } },
      name,
    )
  }
})

t.test('a minted token carries exactly the claims and the header of a real one', async (test) => {
  const { api, pod } = await start(test, { algs: ['RS256'] })
  const sample = JSON.parse(
    await readFile(new URL('claims-agent.json', SAMPLES), 'utf8'),
  ) as Record<'header' | 'claims', Record<string, unknown>>
  const token = api.mintToken({ pod, audiences: ['lab-aud'] })
  const [header, claims] = token.split('.').map((part) => Buffer.from(part, 'base64url').toString())
  const shape = (value: unknown): unknown =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.entries(value).map(([key, inner]) => [key, shape(inner)])
      : typeof value
  test.strictSame(shape(JSON.parse(header ?? '')), shape(sample.header))
  test.strictSame(shape(JSON.parse(claims ?? '')), shape(sample.claims))
})

t.test('discovery and JWKS have the fields, types and order of the real ones', async (test) => {
  const { api, pod } = await start(test, { algs: ['RS256'] })
  const token = api.sidecarToken()
  const discovery = await call(api, '/.well-known/openid-configuration', { token })
  const sample = await readFile(new URL('openid-configuration.json', SAMPLES), 'utf8')
  test.strictSame(JSON.parse(discovery.text), JSON.parse(sample))
  const jwks = await call(api, '/openid/v1/jwks', { token })
  test.equal(jwks.type, 'application/jwk-set+json')
  const keys = JSON.parse(jwks.text) as { keys: [Record<string, string>] }
  const real = JSON.parse(await readFile(new URL('jwks.json', SAMPLES), 'utf8')) as typeof keys
  test.strictSame(Object.keys(keys.keys[0]), Object.keys(real.keys[0]))
  const minted = api.mintToken({ pod })
  const [head, body, signature] = minted.split('.')
  const key = createPublicKey({ key: keys.keys[0], format: 'jwk' })
  const isSigned = verify(
    'sha256',
    Buffer.from(`${head}.${body}`),
    key,
    Buffer.from(signature ?? '', 'base64url'),
  )
  test.ok(isSigned, 'the published key verifies a minted token')
})

t.test('the server is reached over TLS with its own CA alone', async (test) => {
  const { api } = await start(test)
  const before = api.ca()
  test.equal((await call(api, '/readyz')).text, 'ok')
  test.match(JSON.parse((await call(api, '/version')).text), { major: '1', minor: '35' })
  const stranger = (await createAuthority()).cert
  await test.rejects(call({ ...api, ca: () => stranger }, '/readyz'), { code: /CERT|UNABLE/ })
  await api.rotateAuthority()
  await test.rejects(call({ ...api, ca: () => before }, '/readyz'), { code: /CERT|UNABLE/ })
  test.equal((await call(api, '/readyz')).text, 'ok')
})

t.test('a caller without a right gets the refusal a real API server gives', async (test) => {
  const { api, pod } = await start(test)
  const body = { spec: { token: 'x' } }
  const ask = async (how: Call, path = REVIEWS) => {
    const { status, text } = await call(api, path, how)
    const { message } = JSON.parse(text) as { message: string }
    return `${status} ${message}`
  }
  test.equal(await ask({ token: 'garbage', body }), '401 Unauthorized')
  test.equal(
    await ask({ body }),
    '403 tokenreviews.authentication.k8s.io is forbidden: User "system:anonymous" cannot create ' +
      'resource "tokenreviews" in API group "authentication.k8s.io" at the cluster scope',
  )
  const worker = api.mintToken({ pod, audiences: [ISSUER] })
  test.match(await ask({ token: worker, body }), /^403 .*serviceaccount:lab:agent" cannot create/)
  test.equal(
    await ask({ token: api.mintToken({ pod }) }, PODS),
    '401 Unauthorized',
    'a token for another audience is no credential here',
  )
  const token = api.sidecarToken()
  test.equal(
    await ask({ token, body: { spec: { token: '' } } }),
    '400 token is required for TokenReview in authentication',
  )
  test.equal(await ask({ token }, `${PODS}/nope`), '404 pods "nope" not found')
  test.equal(await ask({ token }, `${PODS}?fieldSelector=a=b`), '400 field label not supported: a')
  api.setRbac({ pods: false, tokenReviews: false })
  test.match(await ask({ token, body }), /^403 .*openclaw-gateway" cannot create/)
  test.equal(
    await ask({ token }, `${PODS}/agent-1`),
    '403 pods "agent-1" is forbidden: User "system:serviceaccount:openclaw:openclaw-gateway" ' +
      'cannot get resource "pods" in API group "" in the namespace "lab"',
  )
  api.revokeSidecarToken(token)
  test.equal(await ask({ token, body }), '401 Unauthorized')
})

t.test('a SelfSubjectAccessReview is answered as by kube-apiserver v1.35.4', async (test) => {
  const { api, clock } = await start(test)
  const ask = async (spec: object, token: string | undefined = api.sidecarToken()) => {
    const how = token === '' ? { body: { spec } } : { token, body: { spec } }
    const { status, text } = await call(api, ACCESS, how)
    return { code: status, ...(JSON.parse(text) as { status?: unknown }) }
  }
  const may = async (resourceAttributes: object): Promise<unknown> =>
    (await ask({ resourceAttributes })).status
  const pods = { namespace: 'openclaw', resource: 'pods', verb: 'list' }
  test.strictSame(await ask({ resourceAttributes: pods }), {
    code: 201,
    kind: 'SelfSubjectAccessReview',
    apiVersion: 'authorization.k8s.io/v1',
    metadata: {
      managedFields: [
        {
          manager: 'curl',
          operation: 'Update',
          apiVersion: 'authorization.k8s.io/v1',
          time: `${new Date(clock.now()).toISOString().slice(0, 19)}Z`,
          fieldsType: 'FieldsV1',
          fieldsV1: {
            'f:spec': {
              'f:resourceAttributes': {
                '.': {},
                'f:namespace': {},
                'f:resource': {},
                'f:verb': {},
              },
            },
          },
        },
      ],
    },
    spec: { resourceAttributes: pods },
    status: {
      allowed: true,
      reason:
        'RBAC: allowed by RoleBinding "openclaw-auth-sidecar/openclaw" of Role ' +
        '"openclaw-auth-sidecar" to ServiceAccount "openclaw-gateway/openclaw"',
    },
  })
  const reviews = { group: 'authentication.k8s.io', resource: 'tokenreviews' }
  test.strictSame(await may({ ...reviews, verb: 'create' }), {
    allowed: true,
    reason:
      'RBAC: allowed by ClusterRoleBinding "openclaw-auth-sidecar" of ClusterRole ' +
      '"openclaw-auth-sidecar" to ServiceAccount "openclaw-gateway/openclaw"',
  })
  api.setRbac({ namespaces: ['openclaw'], serviceAccounts: false })
  for (const refused of [
    { ...reviews, verb: 'list' },
    { ...pods, verb: 'delete' },
    { ...pods, namespace: 'default' },
    { resource: 'pods', verb: 'list' },
    { ...pods, resource: 'serviceaccounts', name: 'agent' },
  ]) {
    test.strictSame(await may(refused), { allowed: false }, JSON.stringify(refused))
  }
  test.match(await ask({}), {
    code: 422,
    message:
      '.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: ' +
      'exactly one of nonResourceAttributes or resourceAttributes must be specified',
  })
  test.match(await ask({ resourceAttributes: pods }, ''), {
    code: 403,
    message:
      /^selfsubjectaccessreviews\.authorization\.k8s\.io is forbidden: User "system:anonymous"/,
  })
  test.match(await ask({ resourceAttributes: pods }, 'garbage'), { code: 401 })
})

t.test('every answer tells the time of the API server', async (test) => {
  const { api, clock } = await start(test)
  clock.stepWall(7 * 86_400_000)
  const { headers } = await open(api, '/version')
  test.equal(Date.parse(headers.date ?? ''), Math.floor(clock.now() / 1000) * 1000)
  test.equal((await call(api, '/version', { token: 'garbage' })).status, 401, 'as the real one')
})

t.test(
  'forged, foreign, unsigned and outdated tokens are refused, good ones are not',
  async (test) => {
    const { api, clock, pod } = await start(test, { algs: ['ES256', 'RS256'] })
    const mint = (how = {}) => api.mintToken({ pod, audiences: ['lab-aud'], ...how })
    const error = async (token: string) => (await review(api, token)).status.error
    test.equal(await error(mint()), undefined)
    test.equal(await error(mint({ alg: 'RS256' })), undefined)
    test.match(await error(mint({ key: 'forged' })), /cryptographic primitive/)
    test.match(await error(mint({ key: 'other' })), /no keys found/)
    test.match(await error(mint({ header: { alg: 'none' } })), /cryptographic primitive/)
    test.equal(await error(mint({ claims: { iss: 'https://elsewhere' } })), 'invalid bearer token')
    test.equal(
      await error(encodeToken({ alg: 'none' }, { iss: ISSUER }, () => Buffer.alloc(0))),
      '[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]',
    )
    const one = withBadSignature(mint(), 1)
    test.not(one, withBadSignature(mint(), 2))
    test.match(await error(one), /cryptographic primitive/)

    const old = mint()
    await api.rotateKeys()
    test.equal(await error(old), undefined, 'an old key that is kept still counts')
    test.equal(await error(mint()), undefined)
    await api.rotateKeys({ keepOld: false })
    test.match(await error(old), /no keys found/)

    const short = mint({ expiresInS: 600 })
    clock.advance(659_000)
    test.equal(await error(short), undefined, 'within 60 s after exp')
    clock.advance(2000)
    test.match(await error(short), /has expired/)
  },
)

t.test('a token dies with its pod, its namesake pod and its ServiceAccount', async (test) => {
  const { api, clock, pod } = await start(test)
  const mint = (of = pod) => api.mintToken({ pod: of, audiences: ['lab-aud'] })
  const error = async (token: string) => (await review(api, token)).status.error
  const token = mint()
  const next = api.recreatePod('lab', 'agent-1')
  test.not(next.metadata.uid, pod.metadata.uid)
  test.strictSame(next.spec, pod.spec)
  test.match(await error(token), /pod UID \(.*\) does not match service account pod ref claim/)
  test.equal(await error(mint(next)), undefined)
  api.deletePod('lab', 'agent-1', { gracePeriodSeconds: 5 })
  clock.advance(64_000)
  test.equal(await error(mint(next)), undefined, 'terminating, and still good for a minute')
  clock.advance(2000)
  test.match(await error(mint(next)), /has been invalidated/)
  const other = api.createPod({ namespace: 'lab', name: 'b', serviceAccount: 'agent' })
  const last = mint(other)
  api.deleteServiceAccount('lab', 'agent')
  test.equal(await error(last), '[invalid bearer token, serviceaccounts "agent" not found]')
  api.createServiceAccount('lab', 'agent')
  test.match(await error(last), /service account UID/)
})

t.test('successes, and only they, are remembered for as long as asked', async (test) => {
  const { api, clock, pod } = await start(test, { successCacheMs: 10_000 })
  const token = api.mintToken({ pod, audiences: ['lab-aud'] })
  test.equal((await review(api, token)).status.authenticated, true)
  api.deletePod('lab', 'agent-1')
  test.equal((await review(api, token)).status.authenticated, true)
  test.equal((await review(api, token, ['other'])).status.authenticated, undefined)
  clock.advance(10_000)
  test.equal((await review(api, token)).status.authenticated, undefined)
  test.equal(api.counts.tokenReviews, 4)
  const nbf = Math.floor(clock.now() / 1000) + 62
  const early = api.mintToken({ namespace: 'lab', serviceAccount: 'agent', claims: { nbf } })
  test.match(await review(api, early, ['openclaw-gateway']), { status: { error: /not valid yet/ } })
  clock.advance(2000)
  test.match(await review(api, early, ['openclaw-gateway']), { status: { authenticated: true } })
})

t.test('pods are listed by ServiceAccount and in pages', async (test) => {
  const { api } = await start(test)
  for (const name of ['c', 'b']) api.createPod({ namespace: 'lab', name, serviceAccount: 'other' })
  const token = api.sidecarToken()
  const list = async (query: string) =>
    JSON.parse((await call(api, `${PODS}?${query}`, { token })).text) as {
      kind: string
      metadata: { resourceVersion: string; continue?: string }
      items: { kind?: string; metadata: { name: string } }[]
    }
  const names = async (query: string) => (await list(query)).items.map((i) => i.metadata.name)
  test.strictSame(await names(''), ['agent-1', 'b', 'c'])
  test.strictSame(await names('fieldSelector=spec.serviceAccountName=other'), ['b', 'c'])
  test.strictSame(await names('fieldSelector=spec.serviceAccountName!=other'), ['agent-1'])
  const first = await list('limit=2')
  test.equal(first.kind, 'PodList')
  test.equal(first.items[0]?.kind, undefined, 'items of a list have no kind')
  test.strictSame(await names(`limit=2&continue=${first.metadata.continue}`), ['c'])
  api.expireWatches()
  const expired = await call(api, `${PODS}?limit=2&continue=${first.metadata.continue}`, { token })
  test.equal(expired.status, 410)
})

t.test('a watch tells the life of a pod in order and nothing of other pods', async (test) => {
  const { api, pod } = await start(test)
  api.createServiceAccount('lab', 'other')
  const watch = await watchLines(
    api,
    `resourceVersion=${pod.metadata.resourceVersion}&allowWatchBookmarks=true` +
      '&fieldSelector=spec.serviceAccountName=agent',
  )
  await api.watchesOpened(1)
  api.createPod({ namespace: 'lab', name: 'x', serviceAccount: 'other' })
  api.createPod({ namespace: 'elsewhere', name: 'agent-1', serviceAccount: 'agent' })
  const patched = api.patchPod('lab', 'agent-1', { status: { phase: 'Failed', podIP: null } })
  test.strictSame(patched.status.podIPs, [{ ip: '127.0.0.2' }])
  test.notOk('podIP' in patched.status)
  api.deletePod('lab', 'agent-1', { gracePeriodSeconds: 30 })
  api.finishPod('lab', 'agent-1')
  api.sendBookmark()
  const events = []
  for (let n = 0; n < 5; n += 1) events.push(await watch.next())
  test.strictSame(
    events.map(({ type, object }) => [type, object.kind, object.metadata.name]),
    [
      ['MODIFIED', 'Pod', 'agent-1'],
      ['MODIFIED', 'Pod', 'agent-1'],
      ['MODIFIED', 'Pod', 'agent-1'],
      ['DELETED', 'Pod', 'agent-1'],
      ['BOOKMARK', 'Pod', undefined],
    ],
  )
  const deletions = events.map(({ object }) => object.metadata.deletionTimestamp !== undefined)
  test.strictSame(deletions, [false, true, true, true, false])
  test.equal(
    events[3]?.object.metadata.resourceVersion,
    events[4]?.object.metadata.resourceVersion,
    'a bookmark names the newest version',
  )
})

t.test(
  'a watch begins with what is there, or with what was missed, or with a 410',
  async (test) => {
    const { api, pod } = await start(test)
    const fresh = await watchLines(api, 'resourceVersion=0&allowWatchBookmarks=true')
    test.equal((await fresh.next()).type, 'ADDED')
    test.strictSame((await fresh.next()).object.metadata.annotations, {
      'k8s.io/initial-events-end': 'true',
    })
    api.createPod({ namespace: 'lab', name: 'late', serviceAccount: 'agent' })
    const behind = await watchLines(api, `resourceVersion=${pod.metadata.resourceVersion}`)
    test.match(await behind.next(), { type: 'ADDED', object: { metadata: { name: 'late' } } })
    api.expireWatches()
    test.match(await behind.next(), { type: 'ERROR', object: { kind: 'Status', code: 410 } })
    test.equal((await behind.next()).type, 'END')
    const stale = await watchLines(api, `resourceVersion=${pod.metadata.resourceVersion}`)
    test.match(await stale.next(), { type: 'ERROR', object: { code: 410 } })
  },
)

t.test('a watch ends at its timeout, when dropped, and is mute in a blackhole', async (test) => {
  const { api, clock } = await start(test)
  const query = 'resourceVersion=0&timeoutSeconds=20'
  const timed = await watchLines(api, query)
  await timed.next()
  clock.advance(20_000)
  test.equal((await timed.next()).type, 'END')

  const mute = await watchLines(api, query)
  await mute.next()
  let heard = ''
  mute.response.on('data', (chunk: Buffer) => (heard += chunk.toString()))
  api.blackholeWatches()
  api.createPod({ namespace: 'lab', name: 'unseen', serviceAccount: 'agent' })
  clock.advance(20_000)
  test.equal(api.openWatches(), 1, 'still connected past its timeout')
  const later = await watchLines(api, query)
  test.equal((await later.next()).object.metadata.name, 'agent-1', 'a new watch is served')
  later.response.on('error', () => {})
  mute.response.on('error', () => {})
  api.dropWatches()
  await Promise.all([gone(mute.response), gone(later.response)])
  test.equal(heard, '')
  test.notOk(mute.response.complete)
  test.equal(clock.pending, 0, 'no timer outlives its watch')
})

t.test('each fault shows once it is armed, and for as long as asked', async (test) => {
  const { api, clock, pod } = await start(test)
  const token = api.mintToken({ pod, audiences: ['lab-aud'] })
  const once1 = { times: 1 }
  const body = { spec: { token, audiences: ['lab-aud'] } }
  const post = async () => call(api, REVIEWS, { token: api.sidecarToken(), body })

  const headers = { 'retry-after': '1' }
  api.setFault('tokenReviews', { kind: 'status', status: 429, body: 'slow', headers }, once1)
  test.match(await post(), { status: 429, text: 'slow' })
  test.match(await post(), { status: 201 }, 'gone after its time')
  api.setFault('tokenReviews', { kind: 'reset' })
  await test.rejects(post(), { code: 'ECONNRESET' })
  await test.rejects(post(), { code: 'ECONNRESET' })
  api.clearFaults()
  api.setFault('*', { kind: 'garbage' }, once1)
  const { text } = await post()
  test.throws(() => JSON.parse(text) as unknown)
  api.setFault('tokenReviews', { kind: 'halfBody', ending: 'cut' }, once1)
  await test.rejects(post(), { code: 'ECONNRESET' })
  api.setFault('tokenReviews', { kind: 'wrongAudience' }, once1)
  test.strictSame((await review(api, token)).status.audiences, undefined)
  api.setFault('tokenReviews', { kind: 'wrongAudience', audiences: ['x'] }, once1)
  test.match((await review(api, token)).status, { authenticated: true, audiences: ['x'] })
  api.setFault('tokenReviews', { kind: 'rewriteReview', rewrite: asOther }, once1)
  test.match((await review(api, token)).status.user.username, /lab:other$/)

  api.setFault('tokenReviews', { kind: 'delay', ms: 3000 }, once1)
  const arriving = api.requested('tokenReviews', api.counts.tokenReviews + 1)
  let isAnswered = false
  const delayed = post().finally(() => (isAnswered = true))
  await arriving
  await call(api, '/readyz')
  test.notOk(isAnswered)
  await clock.advanceAsync(3000)
  test.match(await delayed, { status: 201 })

  api.setFault('lists', { kind: 'halfBody', ending: 'stall' }, once1)
  const half = await open(api, PODS, { token: api.sidecarToken() })
  const [chunk] = (await once(half, 'data')) as [Buffer]
  test.equal(chunk.length, Number(half.headers['content-length']) >> 1)
  half.on('error', () => {})

  api.setFault('watches', { kind: 'status', status: 500 }, once1)
  const refused = await open(api, `${PODS}?watch=1`, { token: api.sidecarToken() })
  test.equal(refused.statusCode, 500)

  api.setFault('tokenReviews', { kind: 'hang' }, once1)
  const hanging = post()
  await api.requested('tokenReviews', api.counts.tokenReviews + 1)
  api.dropConnections()
  await test.rejects(hanging, { code: 'ECONNRESET' })
})

t.test('a review can be held after its verdict and before its answer', async (test) => {
  const { api, pod } = await start(test)
  const token = api.mintToken({ pod, audiences: ['lab-aud'] })
  api.pauseReviews()
  const held = review(api, token)
  await api.reviewArrived()
  api.deletePod('lab', 'agent-1')
  const second = review(api, token)
  await api.reviewArrived()
  test.equal(api.reviewsHeld(), 2)
  api.releaseReviews()
  test.equal((await held).status.authenticated, true, 'decided before the pod was gone')
  test.equal((await second).status.authenticated, undefined)
  test.equal((await review(api, token)).status.authenticated, undefined, 'later ones pass')
})

t.test(
  'a paced route answers one after another, and turns away who would wait too long',
  async (test) => {
    const pace = { ratePerSecond: 10, serviceMs: 5, waitMsMax: 100 }
    const { api, clock, pod } = await start(test, { paces: { tokenReviews: pace } })
    const token = api.mintToken({ pod, audiences: ['lab-aud'] })
    const answeredAt: number[] = []
    const reviews = [1, 2].map(async () => {
      const { code } = await review(api, token)
      answeredAt.push(clock.monotonic())
      return code
    })
    await api.requested('tokenReviews', 2)
    const refused = await call(api, REVIEWS, { token: api.sidecarToken(), body: {} })
    test.equal(refused.status, 429)
    test.match(JSON.parse(refused.text), { kind: 'Status', reason: 'TooManyRequests' })
    test.strictSame(await runUntil(clock, Promise.all(reviews), 5), [201, 201])
    test.ok((answeredAt[0] ?? 0) < 100 && (answeredAt[1] ?? 0) >= 105, 'each in its turn')
    test.equal(
      (await call(api, PODS, { token: api.sidecarToken() })).status,
      200,
      'others do not wait',
    )
  },
)

t.test(
  'a stopped server refuses connections and comes back on its port with its state',
  async (test) => {
    const { api, pod } = await start(test)
    const watch = await watchLines(api, 'resourceVersion=0')
    await watch.next()
    watch.response.on('error', () => {})
    await api.stop()
    await test.rejects(call(api, '/readyz'), { code: 'ECONNREFUSED' })
    await api.start()
    const token = api.mintToken({ pod, audiences: ['lab-aud'] })
    test.equal((await review(api, token)).status.authenticated, true)
  },
)

t.test('the files of a pod let a process in', async (test) => {
  const { api } = await start(test)
  const files = await api.files(await mkdtemp(join(tmpdir(), 'kit-')))
  test.equal(await readFile(files.caFile, 'utf8'), api.ca())
  test.equal(await readFile(files.namespaceFile, 'utf8'), 'openclaw')
  const token = await readFile(files.tokenFile, 'utf8')
  test.equal((await call(api, PODS, { token })).status, 200)
})

t.test('the fake clock runs what is due, in order, and nothing else', async (test) => {
  const clock = new FakeClock(1000)
  const ran: string[] = []
  clock.after(20, () => ran.push(`b at ${clock.monotonic()}`))
  clock.after(10, () => {
    ran.push(`a at ${clock.monotonic()}`)
    clock.after(5, () => ran.push(`nested at ${clock.monotonic()}`))
  })
  clock.after(15, () => ran.push('same time, later armed'))
  const cancel = clock.after(12, () => ran.push('never'))
  clock.after(21, () => ran.push('late'))
  cancel()
  clock.advance(20)
  test.strictSame(ran, ['a at 10', 'same time, later armed', 'nested at 15', 'b at 20'])
  test.equal(clock.now(), 1020)
  test.equal(clock.pending, 1)
  clock.stepWall(-500)
  test.strictSame([clock.now(), clock.monotonic(), ran.length], [520, 20, 4])

  const chained = new FakeClock(0)
  const rearm = async (): Promise<void> => {
    await new Promise<void>((resolve) => chained.after(10, resolve))
    ran.push(`promised at ${chained.monotonic()}`)
    if (chained.monotonic() < 30) await rearm()
  }
  const done = rearm()
  await chained.advanceAsync(30)
  await done
  test.strictSame(ran.slice(4), ['promised at 10', 'promised at 20', 'promised at 30'])

  const endless = new FakeClock(0)
  const spin = (): void => void endless.after(0, spin)
  spin()
  test.throws(() => endless.advance(1), /fell due at once/)
})

const echoServer = async (test: Test) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  test.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return { server, port, url: `ws://127.0.0.1:${port}` }
}

t.test(
  'a worker shows its token by the carrier it is told, from the address it is told',
  async (test) => {
    const { server, url } = await echoServer(test)
    const seen = async (options: Parameters<typeof connectWorker>[0]) => {
      const arrived = once(server, 'connection') as Promise<[unknown, IncomingMessage]>
      const outcome = await connectWorker(options)
      const [, { headers, socket }] = await arrived
      if (outcome.ok) outcome.socket.terminate()
      return { headers, from: socket.remoteAddress, outcome }
    }
    const token = 'a.b.c'
    test.match((await seen({ url, token })).headers, { authorization: 'Bearer a.b.c' })
    test.match((await seen({ url, token, carrier: 'header' })).headers, {
      'x-openclaw-sa-token': token,
    })
    test.match((await seen({ url, token, carrier: 'cf' })).headers, {
      'cf-access-client-secret': token,
    })
    const bare = await seen({ url, token, carrier: 'none', localAddress: '127.0.0.9' })
    test.notOk(bare.headers.authorization)
    test.equal(bare.from, '127.0.0.9')
    server.options.handleProtocols = () => 'v1'
    const two = await seen({ url, token, carrier: 'subprotocol', protocols: ['v1'] })
    test.equal(
      two.headers['sec-websocket-protocol'],
      'base64url.bearer.authorization.k8s.io.YS5iLmM,v1',
    )
    test.match(two.outcome, { ok: true, protocol: 'v1' })
    server.options.handleProtocols = () => false
    const alone = await seen({ url, token, carrier: 'subprotocol' })
    test.match(alone.outcome, { ok: true, protocol: '' })
  },
)

t.test(
  'a refused worker sees status, headers and body; no answer at all is an error',
  async (test) => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', (data) => {
        if (data.includes('/silent')) socket.destroy()
        else socket.end('HTTP/1.1 401 No\r\nX-Code: c\r\nContent-Length: 11\r\n\r\n{"error":1}')
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    test.teardown(() => server.close())
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
    test.match(await connectWorker({ url }), { ok: false, status: 401, body: { error: 1 } })
    test.match(await connectInBand({ url, frame: {} }), { kind: 'refused', status: 401 })
    await test.rejects(openWorker({ url }), /refused with 401/)
    await test.rejects(connectWorker({ url: `${url}/silent` }), /hang up|ECONNRESET/)
  },
)

t.test(
  'no message is lost between the open and the first wait, nor before a close',
  async (test) => {
    const { server, url } = await echoServer(test)
    server.on('connection', (socket) => {
      socket.send('first')
      socket.send(Buffer.from([1, 2]))
      socket.close(4001, 'enough')
    })
    const socket = await openWorker({ url })
    test.strictSame(await closed(socket), { code: 4001, reason: 'enough' })
    test.match(await nextMessage(socket), { text: 'first', binary: false })
    test.match(await nextMessage(socket), { data: Buffer.from([1, 2]), binary: true })
    await test.rejects(nextMessage(socket), /closed with 4001 enough/)
  },
)

t.test(
  'an in-band worker tells the first message or the close that answers its frame',
  async (test) => {
    const { server, url } = await echoServer(test)
    server.on('connection', (socket) => {
      socket.once('message', (data: Buffer) => {
        if (data.toString() === '{"a":1}') socket.send('welcome')
        else socket.close(1008, 'no')
      })
    })
    const welcome = await connectInBand({ url, frame: { a: 1 } })
    test.match(welcome, { kind: 'message', message: { text: 'welcome' } })
    if (welcome.kind === 'message') welcome.socket.terminate()
    test.strictSame(await connectInBand({ url, frame: 'else' }), {
      kind: 'closed',
      code: 1008,
      reason: 'no',
    })
  },
)

t.test('a raw upgrade reads a whole refusal, stops at a 101, and tells a reset', async (test) => {
  const replies: Record<string, (socket: Socket) => void> = {
    '/refuse': (socket) => socket.end('HTTP/1.1 400 Bad\r\nX-A: 1\r\nx-a: 2\r\n\r\nbody'),
    '/length': (socket) =>
      socket.write('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\no', () =>
        setImmediate(() => setImmediate(() => socket.write('k'))),
      ),
    '/switch': (socket) => socket.write('HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\nframe'),
    '/reset': (socket) => socket.resetAndDestroy(),
    '/end': (socket) => socket.end(),
  }
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (data) => replies[data.toString().split(' ')[1] ?? '']?.(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  test.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const ask = async (path: string) => rawUpgrade({ port, lines: upgradeLines(path) })
  test.match(await ask('/refuse'), { status: 400, headers: { 'x-a': '1, 2' }, body: 'body' })
  const kept = await ask('/length')
  test.match(kept, { status: 403, body: 'ok' })
  kept.socket.destroy()
  const switched = await ask('/switch')
  test.match(switched, { status: 101, body: '' })
  const [frame] = (await once(switched.socket.resume(), 'data')) as [Buffer]
  test.equal(frame.toString(), 'frame')
  switched.socket.destroy()
  test.match(await ask('/reset'), { status: 0, isReset: true })
  test.match(await ask('/end'), { status: 0, isReset: false })
  await test.rejects(rawUpgrade({ port, bytes: 'GET /mute H\r\n', timeoutMs: 20 }), /within 20 ms/)
})
