/** The precheck decides everything that needs no API server, and is never too lenient. */

import { createHmac } from 'node:crypto'
import { test } from 'tap'
import { createLocalJWKSet } from 'jose'
import { readClaims, type ClaimRules } from '@openclaw-k8s/auth-sidecar/authn/claims.ts'
import { createPrecheck } from '@openclaw-k8s/auth-sidecar/authn/precheck.ts'
import type { Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { verifySignature, type KeySource } from '@openclaw-k8s/auth-sidecar/authn/signature.ts'
import { groupStrangers } from '@openclaw-k8s/auth-sidecar/lib/address-group.ts'
import { TokenBuckets } from '@openclaw-k8s/auth-sidecar/lib/token-buckets.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { KubeStore } from '../kit/kube-store.ts'
import {
  encodeToken,
  KeyRing,
  mintToken,
  publicJwk,
  withBadSignature,
  type TokenRequest,
} from '../kit/kube-tokens.ts'
import { createWorkloads } from '../kit/kube-workloads.ts'

const ISSUER = 'https://issuer.example'
const clock = new FakeClock()
const NOW_S = clock.now() / 1000
const store = new KubeStore()
const keys = await KeyRing.create(['RS256', 'ES256'])
const pod = createWorkloads(store, clock.now).createPod({
  namespace: 'openclaw',
  name: 'worker-a',
  serviceAccount: 'openclaw-worker',
  ips: ['127.0.0.11'],
  nodeName: 'node-1',
})
const issuing = { issuer: ISSUER, keys, store, nowMs: clock.now, nodeUid: () => 'node-uid' }
const mint = (request: TokenRequest = {}) => mintToken(issuing, { pod, ...request })
const jwks = () => createLocalJWKSet({ keys: keys.accepted.map(publicJwk) })

/** Asked only where the cluster serves no keys. */
const findUnseen = async (): Promise<undefined> => {
  throw new Error('nobody asked')
}

const RULES: ClaimRules = {
  issuers: () => [ISSUER],
  audiences: ['openclaw-gateway', 'second'],
  maxTokenLifetimeMs: 7_200_000,
  isListed: (namespace, name) => namespace === 'openclaw' && name === 'openclaw-worker',
}
const codeOf = (token: string, rules: Partial<ClaimRules> = {}) => {
  const verdict = readClaims(token, { ...RULES, ...rules }, clock.now())
  return verdict.ok ? 'ok' : verdict.code
}
const bound = (changes: object) => ({
  'kubernetes.io': {
    namespace: 'openclaw',
    serviceaccount: { name: 'openclaw-worker', uid: 'sa-uid' },
    pod: { name: 'worker-a', uid: 'pod-uid' },
    ...changes,
  },
})

test('a good token is read as the cluster wrote it', async (t) => {
  const verdict = readClaims(mint(), RULES, clock.now())
  t.match(verdict, {
    ok: true,
    value: {
      issuer: ISSUER,
      audiences: ['openclaw-gateway'],
      issuedAt: NOW_S,
      expiresAt: NOW_S + 3600,
      namespace: 'openclaw',
      serviceAccount: 'openclaw-worker',
      podName: 'worker-a',
      podUid: pod.metadata.uid,
      nodeName: 'node-1',
    },
  })
  t.equal(codeOf(mint({ alg: 'ES256' })), 'ok')
  t.equal(codeOf(mint({ claims: { aud: 'second' } })), 'ok', 'an audience need not be a list')
  t.equal(codeOf(mint({ claims: { jti: undefined, nbf: undefined } })), 'ok')
  t.equal(codeOf(mint({ claims: { iss: 'x' } }), { issuers: () => undefined }), 'ok', 'unknown yet')
})

test('no header lets a token choose its own key, rules or algorithm', async (t) => {
  for (const alg of [
    'none',
    'None',
    'HS256',
    'PS256',
    'EdDSA',
    'rs256',
    'RSA-OAEP',
    7,
    undefined,
  ]) {
    t.equal(codeOf(mint({ header: { alg } })), 'algorithm_not_allowed', String(alg))
  }
  const fields = {
    jwk: publicJwk(keys.accepted[0]!),
    jku: 'https://evil.example/jwks',
    x5u: 'https://evil.example/cert',
    x5c: ['AAAA'],
    crit: ['exp'],
    b64: false,
    zip: 'DEF',
  }
  for (const [name, value] of Object.entries(fields)) {
    t.equal(codeOf(mint({ header: { [name]: value } })), 'algorithm_not_allowed', name)
  }
  t.equal(codeOf(mint({ header: { kid: 'k'.repeat(257) } })), 'token_malformed', 'huge kid')
  t.equal(codeOf(mint({ header: { kid: 7 } })), 'token_malformed', 'kid that is not a string')
})

test('a token has exactly three parts, of JSON', async (t) => {
  const [head, body, signature] = mint().split('.')
  const array = encodeToken([], {}, () => Buffer.from('x'))
  const list = encodeToken({ alg: 'RS256' }, [], () => Buffer.from('x'))
  const shapes = [
    '',
    'garbage',
    `${head}.${body}`,
    `${head}.${body}.${signature}.x`,
    `${head}.${body}.${signature}.x.y`,
    `${head}..${signature}`,
    `.${body}.${signature}`,
    `!!.${body}.${signature}`,
    `${head}.bm8.${signature}`,
    list,
  ]
  for (const shape of shapes) t.equal(codeOf(shape), 'token_malformed', shape.slice(0, 30))
  t.not(codeOf(array), 'ok')
})

test('issuer, audience and allow-list must fit', async (t) => {
  t.equal(codeOf(mint({ claims: { iss: `${ISSUER}/` } })), 'issuer_not_allowed')
  t.equal(codeOf(mint({ audiences: ['openclaw'] })), 'audience_mismatch')
  t.equal(codeOf(mint({ audiences: [] })), 'audience_mismatch')
  t.equal(codeOf(mint(), { isListed: () => false }), 'identity_not_allowed')
})

test('a token lives from its nbf, with 60 s of skew, to its exp to the second', async (t) => {
  t.equal(codeOf(mint({ claims: { exp: NOW_S + 1 } })), 'ok')
  t.equal(codeOf(mint({ claims: { exp: NOW_S } })), 'token_expired')
  t.equal(codeOf(mint({ claims: { exp: NOW_S - 59 } })), 'token_expired', 'no leeway here')
  t.equal(codeOf(mint({ claims: { exp: NOW_S - 9 } }), { expiryGraceMs: 10_000 }), 'ok')
  t.equal(codeOf(mint({ claims: { exp: NOW_S - 10 } }), { expiryGraceMs: 10_000 }), 'token_expired')
  t.equal(codeOf(mint({ claims: { nbf: NOW_S + 60 } })), 'ok')
  t.equal(codeOf(mint({ claims: { nbf: NOW_S + 61 } })), 'token_not_yet_valid')
  t.equal(codeOf(mint({ expiresInS: 7200 })), 'ok')
  t.equal(codeOf(mint({ expiresInS: 7201 })), 'token_lifetime_exceeded')
  t.equal(codeOf(mint({ claims: { iat: undefined }, expiresInS: 7201 })), 'token_lifetime_exceeded')
})

test('claims of another type or grammar are refused, and names are exact', async (t) => {
  const wrong: readonly (readonly [string, Record<string, unknown>])[] = [
    ['no exp', { exp: undefined }],
    ['text exp', { exp: String(NOW_S + 9) }],
    ['negative exp', { exp: -1 }],
    ['no iat and no nbf', { iat: undefined, nbf: undefined }],
    ['no iss', { iss: undefined }],
    ['iss list', { iss: [ISSUER] }],
    ['aud object', { aud: { 0: 'openclaw-gateway' } }],
    ['aud of numbers', { aud: [1] }],
    ['jti with a line break', { jti: 'a\nb' }],
    ['no binding', { 'kubernetes.io': undefined }],
    ['sub of another', { sub: 'system:serviceaccount:openclaw:admin' }],
    ['sub with a tail', { sub: 'system:serviceaccount:openclaw:openclaw-worker:x' }],
    ...['a@x@y', 'Open', 'a/b', 'openclaw\n', 'a:b', '', '-a', 'a'.repeat(64), '__proto__'].map(
      (namespace) =>
        [
          `namespace ${JSON.stringify(namespace)}`,
          { ...bound({ namespace }), sub: `system:serviceaccount:${namespace}:openclaw-worker` },
        ] as const,
    ),
    ...['a..b', 'A', 'a:b', 'x\r\ny', '*'].map(
      (name) =>
        [
          `ServiceAccount ${JSON.stringify(name)}`,
          {
            ...bound({ serviceaccount: { name, uid: 'u' } }),
            sub: `system:serviceaccount:openclaw:${name}`,
          },
        ] as const,
    ),
    ['pod name', bound({ pod: { name: 'Pod/1', uid: 'u' } })],
    ['pod uid', bound({ pod: { name: 'p', uid: 'u u' } })],
    ['pod without uid', bound({ pod: { name: 'p' } })],
    ['node name', bound({ node: { name: 'n\r\n' } })],
  ]
  for (const [what, claims] of wrong) t.equal(codeOf(mint({ claims })), 'token_malformed', what)
  t.equal(codeOf(mint({ claims: bound({ pod: undefined }) })), 'token_not_pod_bound')
})

const source = (
  current: KeySource['current'],
  ...outcomes: ('refreshed' | 'cooldown' | 'failed')[]
) => {
  let asked = 0
  const refresh = async () => outcomes[asked++] ?? 'cooldown'
  return { keys: { current, refresh }, asked: () => asked }
}

test('a signature holds under a key of the cluster alone', async (t) => {
  const good = source(jwks)
  t.match(await verifySignature(mint(), good.keys), { ok: true, value: 'verified' })
  t.match(await verifySignature(mint({ alg: 'ES256' }), good.keys), { ok: true, value: 'verified' })
  const invalid = { ok: false, code: 'signature_invalid' }
  t.match(await verifySignature(mint({ key: 'forged' }), good.keys), invalid)
  t.match(await verifySignature(withBadSignature(mint(), 1), good.keys), invalid)
  const [head, , signature] = mint().split('.')
  const [, otherBody] = mint({ expiresInS: 7200 }).split('.')
  t.match(await verifySignature(`${head}.${otherBody}.${signature}`, good.keys), invalid)
  t.equal(good.asked(), 0, 'nothing is fetched for a known key')
})

test('a public key is never taken for a shared secret', async (t) => {
  const [rsa] = keys.accepted
  const pem = rsa!.publicKey.export({ type: 'spki', format: 'pem' })
  const hmac = (input: Buffer) => createHmac('sha256', pem).update(input).digest()
  const token = encodeToken({ alg: 'HS256', kid: rsa!.kid }, {}, hmac)
  const { ok } = await verifySignature(token, source(jwks, 'cooldown').keys)
  t.equal(ok, false)
})

test('an unknown key is looked for once, and refuses only when the cluster lacks it', async (t) => {
  const token = mint({ key: 'other' })
  const cases = [
    ['refreshed', 'signing_key_unknown'],
    ['cooldown', 'keys_cooldown'],
    ['failed', 'keys_unavailable'],
  ] as const
  for (const [outcome, code] of cases) {
    const { keys: given, asked } = source(jwks, outcome)
    t.strictSame(await verifySignature(token, given), { ok: false, code })
    t.equal(asked(), 1, outcome)
  }
})

test('a key that a refetch brings admits, also one that others began earlier', async (t) => {
  for (const outcome of ['refreshed', 'cooldown'] as const) {
    let current = createLocalJWKSet({ keys: [] })
    const given = {
      current: () => current,
      refresh: async () => {
        current = jwks()
        return outcome
      },
    }
    t.match(await verifySignature(mint(), given), { ok: true, value: 'verified' })
  }
})

test('without any keys a few tokens pass unverified, with a cap per address and in total', async (t) => {
  const buckets = (burst: number) => new TokenBuckets({ ratePerSecond: 1, burst, clock })
  const precheck = createPrecheck({
    rules: () => RULES,
    keys: source(() => undefined, 'failed').keys,
    clock,
    unverifiedBudget: { perAddress: buckets(2), inAll: buckets(3), seen: buckets(0) },
    findUnseen,
  })
  const ask = async (address: string) => precheck.verify(mint(), address)
  const refused = { ok: false, code: 'keys_unavailable' }
  t.match(await ask('10.0.0.1'), { ok: true })
  t.match(await ask('10.0.0.1'), { ok: true })
  t.match(await ask('10.0.0.1'), refused, 'per address')
  t.match(await ask('10.0.0.2'), { ok: true })
  t.match(await ask('10.0.0.3'), refused, 'in all')
  clock.advance(1000)
  t.match(await ask('10.0.0.3'), { ok: true }, 'a second later')
})

test('where the cluster serves no keys, only a pod that the watch shows is worth a TokenReview', async (t) => {
  const buckets = (burst: number) => new TokenBuckets({ ratePerSecond: 1, burst, clock })
  let unseen: Code | undefined = 'pod_unconfirmed'
  const asked: string[] = []
  const precheck = createPrecheck({
    rules: () => RULES,
    keys: { ...source(() => undefined, 'failed').keys, isReviewOnly: true },
    clock,
    unverifiedBudget: { perAddress: buckets(2), inAll: buckets(0), seen: buckets(3) },
    findUnseen: async ({ podUid }, address) => {
      asked.push(`${podUid} at ${address}`)
      return unseen
    },
  })
  const ask = async (address: string) => {
    const claims = precheck.read(mint())
    if (!claims.ok) throw new Error(claims.code)
    return precheck.verify(mint(), address, claims.value)
  }
  for (const code of ['pod_unconfirmed', 'source_address_mismatch', 'pod_deleted'] as const) {
    unseen = code
    t.strictSame(await ask('10.0.0.1'), { ok: false, code })
  }
  t.strictSame(asked[0], `${pod.metadata.uid} at 10.0.0.1`)
  unseen = undefined
  t.match(await ask('10.0.0.1'), { ok: true, value: 'unavailable' }, 'a refusal takes no budget')
  t.match(await ask('10.0.0.1'), { ok: true })
  t.match(await ask('10.0.0.1'), { code: 'keys_unavailable' }, 'per address')
  t.match(await ask('10.0.0.2'), { ok: true })
  t.match(await ask('10.0.0.3'), { code: 'keys_unavailable' }, 'in all')
})

test('in review-only mode each pod of an IPv6 network has a budget of its own', async (t) => {
  const buckets = (burst: number) => new TokenBuckets({ ratePerSecond: 1, burst, clock })
  const precheck = createPrecheck({
    rules: () => RULES,
    keys: { ...source(() => undefined, 'failed').keys, isReviewOnly: true },
    clock,
    unverifiedBudget: { perAddress: buckets(1), inAll: buckets(0), seen: buckets(100) },
    groupOf: groupStrangers((address) => address.startsWith('fd00:')),
    findUnseen: async () => undefined,
  })
  const claims = precheck.read(mint())
  if (!claims.ok) throw new Error(claims.code)
  for (let n = 1; n <= 50; n += 1) {
    t.match(await precheck.verify(mint(), `fd00:10:244:1::${n}`, claims.value), { ok: true })
  }
  t.match(await precheck.verify(mint(), '2001:db8::1', claims.value), { ok: true })
  t.match(await precheck.verify(mint(), '2001:db8::2', claims.value), { code: 'keys_unavailable' })
})

test('an IPv6 network has one budget of unproven tokens, whatever addresses it uses', async (t) => {
  const buckets = (burst: number) => new TokenBuckets({ ratePerSecond: 1, burst, clock })
  const precheck = createPrecheck({
    rules: () => RULES,
    keys: source(() => undefined, 'failed').keys,
    clock,
    unverifiedBudget: { perAddress: buckets(1), inAll: buckets(100), seen: buckets(0) },
    findUnseen,
  })
  t.match(await precheck.verify(mint(), '2001:db8:1:2::1'), { ok: true })
  t.match(await precheck.verify(mint(), '2001:db8:1:2::2'), { code: 'keys_unavailable' })
  t.match(await precheck.verify(mint(), '2001:db8:1:3::1'), { ok: true })
})

test('a token whose keys are known never uses the unverified budget', async (t) => {
  const none = new TokenBuckets({ ratePerSecond: 1, burst: 0, clock })
  const precheck = createPrecheck({
    rules: () => RULES,
    keys: source(jwks).keys,
    clock,
    unverifiedBudget: { perAddress: none, inAll: none, seen: none },
    findUnseen,
  })
  t.match(await precheck.verify(mint(), '10.0.0.1'), { ok: true })
  t.match(precheck.read('a'.repeat(8193)), { ok: false, code: 'credential_too_large' })
})

test('a verified signature is not checked again until the keys change', async (t) => {
  const buckets = new TokenBuckets({ ratePerSecond: 1, burst: 0, clock })
  let checks = 0
  const counting = (select: ReturnType<typeof jwks>): ReturnType<typeof jwks> =>
    Object.assign((...args: Parameters<typeof select>) => {
      checks += 1
      return select(...args)
    }, select)
  let current = counting(jwks())
  let rules = RULES
  const precheck = createPrecheck({
    rules: () => rules,
    keys: { current: () => current, refresh: async () => 'refreshed' as const },
    clock,
    unverifiedBudget: { perAddress: buckets, inAll: buckets, seen: buckets },
    findUnseen,
  })
  const ask = async (token: string) => {
    const claims = precheck.read(token)
    return claims.ok ? await precheck.verify(token, '10.0.0.1', claims.value) : claims
  }
  const token = mint()
  t.match(await ask(token), { ok: true, value: 'verified' })
  t.match(await ask(token), { ok: true, value: 'verified' })
  t.equal(checks, 1)

  t.match(await ask(mint({ expiresInS: 7200 })), { ok: true, value: 'verified' })
  t.equal(checks, 2, 'another token of the same pod')
  const forged = withBadSignature(token, 1)
  for (const nth of [3, 4]) {
    t.match(await ask(forged), { ok: false, code: 'signature_invalid' })
    t.equal(checks, nth, 'a failed signature is not remembered, with the same claims or others')
  }
  t.match(await ask(token), { ok: true, value: 'verified' })
  t.equal(checks, 4)

  rules = { ...RULES, isListed: () => false }
  t.match(await ask(token), { ok: false, code: 'identity_not_allowed' }, 'the rules are of today')
  rules = RULES
  current = counting(createLocalJWKSet({ keys: [] }))
  t.match(await ask(token), { ok: false, code: 'signing_key_unknown' }, 'a key that was taken away')
  current = counting(jwks())
  t.match(await ask(token), { ok: true, value: 'verified' })
  t.equal(checks, 7)
  clock.advance(3_600_000)
  t.match(await ask(token), { ok: false, code: 'token_expired' })
})
