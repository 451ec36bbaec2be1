/** A TokenReview admits only where it names exactly the pod of the token, for one of our audiences. */

import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'tap'
import { decodeJwt } from 'jose'
import { createTokenReview } from '@openclaw-k8s/auth-sidecar/authn/token-review.ts'
import { denied } from '@openclaw-k8s/auth-sidecar/denial.ts'
import type { Claims } from '@openclaw-k8s/auth-sidecar/identity.ts'
import type { KubeRequest } from '@openclaw-k8s/auth-sidecar/kube/client.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import type { ReviewBody } from '../kit/kube-faults.ts'

const SAMPLES = new URL('../kit/samples/tokenreview/', import.meta.url)
const read = (name: string) =>
  JSON.parse(readFileSync(new URL(name, SAMPLES), 'utf8')) as ReviewBody
const EXTRA = 'authentication.kubernetes.io/'

const CLAIMS: Claims = {
  issuer: 'https://127.0.0.1:6443',
  audiences: ['lab-aud'],
  issuedAt: 1_795_392_418,
  notBefore: 1_795_392_418,
  expiresAt: 1_795_396_018,
  tokenId: '61ebfd8b-c6a2-4f6c-b953-f554529f1f13',
  namespace: 'lab',
  serviceAccount: 'agent',
  serviceAccountUid: '71b28844-46b1-4fbb-af33-cf8dd372c238',
  podName: 'agent-1',
  podUid: '56af1408-fcf6-4e19-97b2-8f65a7aa7b1d',
  nodeName: 'lab-node-1',
}

/** Reviews the token with an API server that gives this answer. */
const reviewBy = (
  answer: (request: KubeRequest) => unknown,
  claims: Claims = CLAIMS,
  isAlive = false,
) => {
  const review = createTokenReview({
    client: { request: async (request) => ({ status: 201, body: answer(request) }) },
    audiences: ['lab-aud'],
    deadlineMs: 1000,
    clock: new FakeClock(),
    isAlive: () => isAlive,
    onReviewed: () => {},
  })
  return review('the-token', claims)
}

const review = async (answer: unknown, claims: Claims = CLAIMS) => reviewBy(() => answer, claims)

/** The real good answer, with changes. */
const bent = (bend: (body: ReviewBody) => void): ReviewBody => {
  const body = read('tr-valid.json')
  bend(body)
  return body
}
const extra = (name: string, value: unknown) =>
  bent(({ status }) => {
    if (value === undefined) delete status.user.extra[EXTRA + name]
    else status.user.extra[EXTRA + name] = value
  })

test('the real API server is asked once, about our audiences, and believed', async (t) => {
  const bodies: unknown[] = []
  const verdict = await reviewBy(({ body }) => {
    bodies.push(body)
    return read('tr-valid.json')
  })
  t.strictSame(bodies, [
    {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      spec: { token: 'the-token', audiences: ['lab-aud'] },
    },
  ])
  t.strictSame(verdict, {
    ok: true,
    value: {
      namespace: 'lab',
      serviceAccount: 'agent',
      podName: 'agent-1',
      podUid: '56af1408-fcf6-4e19-97b2-8f65a7aa7b1d',
      nodeName: 'lab-node-1',
      credentialId: '61ebfd8b-c6a2-4f6c-b953-f554529f1f13',
      expiresAt: 1_795_396_018,
    },
  })
})

test('every real answer on record gets the verdict it deserves', async (t) => {
  const expected: Readonly<Record<string, string>> = {
    'tr-valid.json': 'ok',
    'tr-two-audiences-one-matches.json': 'ok',
    'tr-unbound.json': 'review_identity_mismatch',
    'tr-default-audience.json': 'review_audience_mismatch',
    'tr-bad-signature.json': 'review_rejected',
    'tr-deleted-pod.json': 'review_rejected',
    'tr-expired.json': 'review_rejected',
    'tr-garbage.json': 'review_rejected',
    'tr-not-yet-valid.json': 'review_rejected',
    'tr-wrong-audience.json': 'review_rejected',
  }
  const names = readdirSync(SAMPLES).filter((name) => name.startsWith('tr-'))
  t.strictSame(names.sort(), Object.keys(expected).sort(), 'no sample is forgotten')
  for (const name of names) {
    const sample = read(name)
    const { jti } = name === 'tr-garbage.json' ? {} : decodeJwt(String(sample.spec.token))
    const verdict = await review(sample, { ...CLAIMS, tokenId: jti })
    t.equal(verdict.ok ? 'ok' : verdict.code, expected[name], name)
  }
})

test('only a plain true without an error is an authentication', async (t) => {
  for (const authenticated of ['true', 1, {}, [true], false, null, undefined]) {
    const answer = bent(({ status }) => Object.assign(status, { authenticated }))
    t.strictSame(
      await review(answer),
      { ok: false, code: 'review_rejected' },
      JSON.stringify(authenticated),
    )
  }
  const withError = bent(({ status }) =>
    Object.assign(status, { error: 'service account token has expired' }),
  )
  t.strictSame(await review(withError), { ok: false, code: 'review_rejected' })
})

const refusedWith = (error: unknown) => ({ kind: 'TokenReview', status: { user: {}, error } })
const inAggregate = (error: string) => `[invalid bearer token, ${error}]`

/** As Kubernetes 1.30 to 1.37 words them. */
const REFUSALS = [
  'invalid signature, no keys found',
  'square/go-jose: error in cryptographic primitive',
  'go-jose/go-jose: error in cryptographic primitive',
  'go-jose/go-jose/jwt: expected number value to unmarshal NumericDate',
  'json: cannot unmarshal string into Go struct field privateClaims.kubernetes.io of type serviceaccount.kubernetes',
  'json: cannot unmarshal number into Go struct field Claims.iss of type string',
  'token audiences ["a" "b"] is invalid for the target audiences ["c"]',
  'token issuer "api" is invalid',
  'service account token has expired',
  'service account token is not valid yet',
  'service account token is issued in the future',
  'service account token claims could not be validated due to unexpected validation error',
  'serviceaccounts "worker" not found',
  'service account team-a/worker has been deleted',
  'service account UID (1-2) does not match claim (3-4)',
  'pod UID (1-2) does not match service account pod ref claim (3-4)',
  'secret UID (1-2) does not match service account secret ref claim (3-4)',
  'node UID (1-2) does not match service account node ref claim (3-4)',
  'token is bound to a Node object but the ServiceAccountTokenNodeBindingValidation feature gate is disabled',
  'sub claim is missing',
  'Token has been invalidated',
  "Token does not match server's copy",
  'ServiceAccount team-a/worker has been deleted',
  'service account token has been invalidated',
]

/** Nobody could say: the API server passes on what went wrong. */
const OUTAGES = [
  'etcdserver: request timed out',
  'etcdserver: leader changed',
  'context deadline exceeded',
  'Post "https://webhook.example/": dial tcp: i/o timeout',
  'unknown',
  'serviceaccounts "worker" is forbidden: not yet ready',
  'the server was unable to return a response in the time allotted',
  'not found',
  'json: cannot unmarshal string into Go struct field TokenReview.status of type v1beta1.TokenReviewStatus',
  'oidc: verify token: go-jose/go-jose: no such host',
]

test('each refusal of the API server refuses the token, and its own trouble is a fault', async (t) => {
  t.strictSame(await review(refusedWith('invalid bearer token')), denied('review_rejected'))
  for (const error of REFUSALS) {
    for (const text of [error, inAggregate(error)]) {
      t.strictSame(await review(refusedWith(text)), denied('review_rejected'), text)
    }
  }
  for (const error of OUTAGES) {
    for (const text of [error, inAggregate(error)]) {
      await t.rejects(review(refusedWith(text)), { code: 'review_unavailable' }, text)
    }
  }
  for (const error of [7, true, { a: 1 }, 'x'.repeat(20_000), `${inAggregate('x')} `]) {
    await t.rejects(review(refusedWith(error)), { code: 'review_unavailable' })
  }
  const both = bent(({ status }) => Object.assign(status, { error: 'context deadline exceeded' }))
  await t.rejects(review(both), { code: 'review_unavailable' }, 'authenticated, and yet an error')
})

test('what the API server says of its own trouble is in the log, at a bounded length', async (t) => {
  const error = inAggregate(`etcdserver: ${'x'.repeat(4000)}`)
  const fault: Error = await review(refusedWith(error)).then(
    () => new Error('no fault'),
    (reason: Error) => reason,
  )
  t.match(fault.message, /^The TokenReview says: "\[invalid bearer token, etcdserver: x+\.$/)
  t.ok(fault.message.length < 600)
})

const INVALIDATED = refusedWith(inAggregate('service account token has been invalidated'))

/** Reviews again and again, on one clock. */
const startReviews = (answers: unknown[], state = { isAlive: true }) => {
  const clock = new FakeClock()
  clock.advance(1)
  let asked = 0
  const ask = createTokenReview({
    client: {
      request: async () => {
        asked += 1
        return { status: 201, body: answers.shift() }
      },
    },
    audiences: ['lab-aud'],
    deadlineMs: 1000,
    clock,
    isAlive: () => state.isAlive,
    onReviewed: () => {},
  })
  const outcome = async (afterMs = 1000) => {
    const before = asked
    const reviewed = ask('the-token', CLAIMS).then(
      (verdict) => (verdict.ok ? 'ok' : verdict.code),
      (fault: { code: string }) => `fault ${fault.code}`,
    )
    await clock.advanceAsync(0)
    await clock.advanceAsync(afterMs)
    return { outcome: await reviewed, asked: asked - before }
  }
  return { clock, outcome }
}

test('a token of a live pod that "has been invalidated" is asked about once more, a second later', async (t) => {
  const { outcome } = startReviews([INVALIDATED, read('tr-valid.json')])
  t.strictSame(await outcome(), { outcome: 'ok', asked: 2 })
  const gone = startReviews([INVALIDATED], { isAlive: false })
  t.strictSame(await gone.outcome(0), { outcome: 'review_rejected', asked: 1 })
  const expired = refusedWith(inAggregate('service account token has expired'))
  const other = startReviews([expired])
  t.strictSame(await other.outcome(0), { outcome: 'review_rejected', asked: 1 }, 'only this one')
})

test('what is said twice of a live pod is a fault for 40 s, then a refusal, and never admits', async (t) => {
  const state = { isAlive: true }
  const { clock, outcome } = startReviews(Array(12).fill(INVALIDATED), state)
  const fault = { outcome: 'fault review_unavailable', asked: 2 }
  t.strictSame(await outcome(), fault)
  await clock.advanceAsync(37_000)
  t.strictSame(await outcome(), fault)
  await clock.advanceAsync(2000)
  t.strictSame(await outcome(), { outcome: 'review_rejected', asked: 2 })
  await clock.advanceAsync(120_000)
  t.strictSame(await outcome(), fault, 'another outage')
  state.isAlive = false
  t.strictSame(await outcome(0), { outcome: 'review_rejected', asked: 1 }, 'the watch saw it go')

  const healed = startReviews([
    INVALIDATED,
    INVALIDATED,
    read('tr-valid.json'),
    INVALIDATED,
    INVALIDATED,
  ])
  t.strictSame(await healed.outcome(), fault)
  t.strictSame(await healed.outcome(0), { outcome: 'ok', asked: 1 })
  await healed.clock.advanceAsync(45_000)
  t.strictSame(await healed.outcome(), fault, 'a good answer ends the outage')
})

test('a reviewer that ignores audiences is not believed, and not asked again', async (t) => {
  for (const audiences of [[], undefined, null, 'lab-aud', ['other'], ['lab'], { 0: 'lab-aud' }]) {
    let asked = 0
    const verdict = await reviewBy(() => {
      asked += 1
      return bent(({ status }) => Object.assign(status, { audiences }))
    })
    t.strictSame(
      verdict,
      { ok: false, code: 'review_audience_mismatch' },
      JSON.stringify(audiences),
    )
    t.equal(asked, 1)
  }
})

test('an answer that names another identity than the token claims is refused', async (t) => {
  const others: readonly (readonly [string, ReviewBody])[] = [
    ...[
      'system:serviceaccount:lab:admin',
      'system:serviceaccount:other:agent',
      'system:serviceaccount:lab:agent@x',
      'system:serviceaccount:lab:agent ',
      'agent',
      ['system:serviceaccount:lab:agent'],
      undefined,
    ].map(
      (username) =>
        [
          `username ${JSON.stringify(username)}`,
          bent(({ status }) => Object.assign(status.user, { username })),
        ] as const,
    ),
    ['other pod-uid', extra('pod-uid', ['00000000-0000-0000-0000-000000000000'])],
    ["the ServiceAccount's uid", extra('pod-uid', ['71b28844-46b1-4fbb-af33-cf8dd372c238'])],
    ['two pod-uids', extra('pod-uid', [CLAIMS.podUid, CLAIMS.podUid])],
    ['no pod-uid', extra('pod-uid', undefined)],
    ['empty pod-uid', extra('pod-uid', [])],
    ['pod-uid that is not a list', extra('pod-uid', CLAIMS.podUid)],
    ['pod-uid of another type', extra('pod-uid', [{}])],
    ['other pod-name', extra('pod-name', ['agent-2'])],
    ['two pod-names', extra('pod-name', ['agent-1', 'agent-2'])],
    ['no pod-name', extra('pod-name', undefined)],
    ['other node-name', extra('node-name', ['lab-node-2'])],
    ['two node-names', extra('node-name', ['lab-node-1', 'lab-node-1'])],
    ['other credential-id', extra('credential-id', ['JTI=other'])],
    ['bare credential-id', extra('credential-id', ['61ebfd8b-c6a2-4f6c-b953-f554529f1f13'])],
    ['two credential-ids', extra('credential-id', ['JTI=a', 'JTI=b'])],
    ['no extra', bent(({ status }) => Object.assign(status.user, { extra: undefined }))],
    ['no user', bent(({ status }) => Object.assign(status, { user: undefined }))],
  ]
  for (const [what, answer] of others) {
    t.strictSame(await review(answer), { ok: false, code: 'review_identity_mismatch' }, what)
  }
})

test('an older cluster need not name the node and the credential', async (t) => {
  const older = bent(({ status }) => {
    delete status.user.extra[`${EXTRA}node-name`]
    delete status.user.extra[`${EXTRA}credential-id`]
  })
  t.match(await review(older), {
    ok: true,
    value: { nodeName: undefined, credentialId: undefined, podName: 'agent-1' },
  })
})

test('inherited names are not read from the answer', async (t) => {
  const answer = { kind: 'TokenReview', status: Object.create(read('tr-valid.json').status) }
  t.strictSame(await review(answer), { ok: false, code: 'review_rejected' })
})

test('an answer that is not a TokenReview is a fault, not a refusal', async (t) => {
  const answers = [
    null,
    'ok',
    [],
    {},
    { kind: 'Status', status: 'Failure' },
    { kind: 'TokenReview' },
    { status: read('tr-valid.json').status },
  ]
  for (const answer of answers) {
    await t.rejects(review(answer), { code: 'review_unavailable' }, JSON.stringify(answer))
  }
})
