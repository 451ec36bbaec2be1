/** The stand-in API server answers as the real one does. */

import { createPublicKey, verify } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import t from 'tap'
import { createAuthority } from '../kit/authority.ts'
import { encodeToken, withBadSignature } from '../kit/kube-tokens.ts'
import {
  call,
  ISSUER,
  open,
  PODS,
  review,
  REVIEWS,
  SAMPLES,
  ACCESS,
  SUBJECT_ACCESS,
  start,
  type Call,
} from '../kit/kube-calls.ts'

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

t.test(
  'discovery and JWKS have the same fields, types and order as the real ones',
  async (test) => {
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
  },
)

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
    'a token for another audience is not accepted as a credential',
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

t.test(
  'a SubjectAccessReview tells only those who may ask, and only what was granted',
  async (test) => {
    const { api } = await start(test)
    const worker = 'system:serviceaccount:openclaw:openclaw-worker'
    const proxied = { namespace: 'openclaw', group: '', resource: 'services/proxy', verb: 'get' }
    const question = { ...proxied, resource: 'services', subresource: 'proxy', name: 'gateway' }
    const ask = async (user: string, changes = {}) => {
      const spec = { user, resourceAttributes: { ...question, ...changes } }
      const how = { token: api.sidecarToken(), body: { spec } }
      const { status, text } = await call(api, SUBJECT_ACCESS, how)
      return { code: status, ...(JSON.parse(text) as { status?: unknown }) }
    }
    test.match(await ask(worker), { code: 403 }, 'the role of the demo does not allow the question')
    api.setRbac({
      subjectAccessReviews: true,
      grants: [{ ...proxied, user: worker, name: 'gateway' }],
    })
    test.match(await ask(worker), { code: 201, status: { allowed: true } })
    for (const changes of [{ name: 'other' }, { namespace: 'default' }, { verb: 'create' }]) {
      test.match(await ask(worker, changes), { code: 201, status: { allowed: false } })
    }
    test.match(await ask(`${worker}-2`), { code: 201, status: { allowed: false } })
  },
)

t.test('strangers get the signing keys only where the cluster publishes them', async (test) => {
  const { api } = await start(test)
  test.equal((await call(api, '/openid/v1/jwks')).status, 403)
  api.setRbac({ publicKeys: true })
  test.equal((await call(api, '/openid/v1/jwks')).status, 200)
})

t.test('every answer carries the time of the API server', async (test) => {
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

t.test(
  'a token dies with its pod, with a replacement of its pod and with its ServiceAccount',
  async (test) => {
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
  },
)

t.test('only successes are remembered, for as long as configured', async (test) => {
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
