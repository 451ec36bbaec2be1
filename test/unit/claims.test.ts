/** What the API server would refuse is refused here too, even with the cluster's own signature. */

import { test } from 'tap'
import { readClaims, type ClaimRules } from '@openclaw-k8s/auth-sidecar/authn/claims.ts'
import { encodeToken } from '../kit/kube-tokens.ts'

const NOW_S = 1_800_000_000
const RULES: ClaimRules = {
  issuers: () => ['https://cluster.example'],
  audiences: ['openclaw-gateway'],
  maxTokenLifetimeMs: 90_000_000,
  isListed: () => true,
}
const HEADER = { alg: 'RS256', kid: 'k' }
const BOUND = {
  namespace: 'openclaw',
  serviceaccount: { name: 'openclaw-worker', uid: 'sa-1' },
  pod: { name: 'worker-1', uid: 'pod-1' },
  node: { name: 'node-1', uid: 'node-1' },
}
const CLAIMS = {
  iss: 'https://cluster.example',
  aud: ['openclaw-gateway'],
  sub: 'system:serviceaccount:openclaw:openclaw-worker',
  iat: NOW_S,
  nbf: NOW_S,
  exp: NOW_S + 3600,
  'kubernetes.io': BOUND,
}

const verdictOn = (token: string): string => {
  const verdict = readClaims(token, RULES, NOW_S * 1000)
  return verdict.ok ? 'ok' : verdict.code
}
const tokenOf = (claims: object) => encodeToken(HEADER, claims, () => Buffer.alloc(256, 255))
/** A token whose header and body are exactly these texts. */
const tokenOfText = (head: string, body: string | Buffer) =>
  [head, body, 'signature']
    .map((part) => (typeof part === 'string' ? Buffer.from(part) : part).toString('base64url'))
    .join('.')
/** The other spellings of the same bytes: those of `part` with another last character. */
const respell = (token: string, part: number): readonly string[] => {
  const parts = token.split('.')
  const text = parts[part] ?? ''
  const free = { 2: 16, 3: 4 }[text.length % 4] ?? 1
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const last = digits.indexOf(text.at(-1) ?? '')
  return Array.from({ length: free }, (_, bits) =>
    parts.with(part, text.slice(0, -1) + digits[last - (last % free) + bits]).join('.'),
  ).filter((spelling) => spelling !== token)
}
const bind = (changes: object) => ({ ...CLAIMS, 'kubernetes.io': { ...BOUND, ...changes } })

test('a token issued in the future is not valid yet, whatever its nbf says', async (t) => {
  t.equal(verdictOn(tokenOf({ ...CLAIMS, iat: NOW_S + 60 })), 'ok', 'clocks differ')
  t.equal(verdictOn(tokenOf({ ...CLAIMS, iat: NOW_S + 61 })), 'token_not_yet_valid')
  t.equal(verdictOn(tokenOf({ ...CLAIMS, nbf: NOW_S + 61 })), 'token_not_yet_valid')
})

test('a token that two parsers could read differently is malformed', async (t) => {
  const head = JSON.stringify(HEADER)
  const body = JSON.stringify(CLAIMS)
  t.equal(verdictOn(tokenOfText(head, body)), 'ok')
  t.equal(verdictOn(tokenOfText(` ${head}`, `${body}\n`)), 'ok', 'blanks mean nothing')
  for (const [name, token] of Object.entries({
    'a claim twice': tokenOfText(head, `{"exp":1,${body.slice(1)}`),
    'a header field twice': tokenOfText(`{"alg":"none",${head.slice(1)}`, body),
    'a byte order mark': tokenOfText(head, `\uFEFF${body}`),
    padding: `${tokenOfText(head, body)}==`,
    'the other alphabet': tokenOf(CLAIMS).replaceAll('_', '/'),
    'a fourth part': `${tokenOf(CLAIMS)}.a`,
  })) {
    t.equal(verdictOn(token), 'token_malformed', name)
  }
})

test('members of the binding that are not read must still be what a cluster writes', async (t) => {
  t.equal(verdictOn(tokenOf(bind({ warnafter: NOW_S }))), 'ok')
  t.equal(verdictOn(tokenOf(bind({ node: { name: 'node-1' } }))), 'ok')
  for (const changes of [
    { secret: { name: 'a' } },
    { node: { name: 'node-1', uid: 7 } },
    { warnafter: 'soon' },
  ]) {
    t.equal(verdictOn(tokenOf(bind(changes))), 'token_malformed', JSON.stringify(changes))
  }
})

/** As Kubernetes writes them for a Secret of type `kubernetes.io/service-account-token`. */
const LEGACY = {
  iss: 'kubernetes/serviceaccount',
  sub: CLAIMS.sub,
  'kubernetes.io/serviceaccount/namespace': 'openclaw',
  'kubernetes.io/serviceaccount/secret.name': 'openclaw-worker-token',
  'kubernetes.io/serviceaccount/service-account.name': 'openclaw-worker',
  'kubernetes.io/serviceaccount/service-account.uid': 'sa-1',
}

test('a token of a Secret, of the old kind or bound to it, is one that is not bound to a pod', async (t) => {
  const secret = { name: 'a-secret', uid: 'secret-1' }
  const claimed = { namespace: 'openclaw', serviceAccount: 'openclaw-worker' }
  for (const [name, claims] of Object.entries({
    'the old kind': LEGACY,
    'bound to a Secret': bind({ pod: undefined, node: undefined, secret }),
    'bound to both, which no cluster writes': bind({ secret }),
  })) {
    const verdict = readClaims(tokenOf(claims), RULES, NOW_S * 1000)
    t.strictSame(verdict, { ok: false, code: 'token_not_pod_bound', claimed }, name)
  }
  const other = { ...LEGACY, sub: 'system:serviceaccount:openclaw:another' }
  t.equal(verdictOn(tokenOf(other)), 'token_malformed', 'of two accounts')
  const noName = { ...LEGACY, 'kubernetes.io/serviceaccount/service-account.name': 'A B' }
  t.equal(verdictOn(tokenOf(noName)), 'token_malformed')
})

test('a token has one spelling: its parts have no unused bits', async (t) => {
  for (const [part, name] of ['header', 'payload', 'signature'].entries()) {
    for (const rest of [1, 2]) {
      const pad = (bytes: Buffer) =>
        Buffer.concat([bytes, Buffer.from(' '.repeat((rest + 3 - (bytes.length % 3)) % 3))])
      const token = [JSON.stringify(HEADER), JSON.stringify(CLAIMS), 'signature']
        .map((text) => pad(Buffer.from(text)).toString('base64url'))
        .join('.')
      t.equal(verdictOn(token), 'ok')
      const spellings = respell(token, part)
      t.equal(spellings.length, rest === 1 ? 15 : 3)
      for (const spelling of spellings) {
        t.strictSame(
          spelling.split('.').map((text) => Buffer.from(text, 'base64url')),
          token.split('.').map((text) => Buffer.from(text, 'base64url')),
          'the same bytes',
        )
        t.equal(verdictOn(spelling), 'token_malformed', `${name}: ${spelling.slice(-4)}`)
      }
    }
  }
  const [header, payload] = tokenOf(CLAIMS).split('.')
  t.equal(verdictOn(`${header}.${payload}.AAAAA`), 'token_malformed', 'a length no bytes have')
})

test('no escape hides a duplicate member, in the header or at any depth', async (t) => {
  const head = JSON.stringify(HEADER)
  const body = JSON.stringify(CLAIMS)
  const extra = (members: string) => tokenOfText(head, `{${members},${body.slice(1)}`)
  for (const members of [
    '"exp":1',
    '"\\u0065xp":1',
    '"e\\u0078\\u0070":1,"note":"a\\u0022b"',
    '"exp":1,"note":"\\u0022\\u0022"',
    '"note":{"a":1,"\\u0061":2}',
    '"note":[[{"a":{"b":1,"b":1}}]]',
    '"note":{"__proto__":1,"__proto__":2}',
    '"note":{"\\u005f_proto__":1,"__proto__":2}',
    '"note":{"a\\/b":1,"a/b":2}',
    '"note":{"":1,"":2}',
    '"note":{"a":1, \n\t"a" \r\n :2}',
  ]) {
    t.equal(verdictOn(extra(members)), 'token_malformed', members)
  }
  for (const members of ['"\\u0061lg":"none"', '"kid":"a","note":"\\u0022\\u0022"']) {
    const token = tokenOfText(`{${members},${head.slice(1)}`, body)
    t.equal(verdictOn(token), 'token_malformed', members)
  }
  for (const members of [
    '"note":{"exp":1,"iss":["iss","iss",":"]}',
    '"note":"\\"exp\\":1,\\\\"',
    '"\\u0022":1,"note":"{\\"a\\":[["',
    '"__proto__":{"aud":"another"},"constructor":1',
    '"note":[{"a":1},{"a":2}],"a":{"a":1}',
    '"Exp":1',
  ]) {
    t.equal(verdictOn(extra(members)), 'ok', members)
  }
})

test('a payload is UTF-8 of bounded depth, and nothing in it is replaced', async (t) => {
  const head = JSON.stringify(HEADER)
  const withNote = (note: Buffer | string) => {
    const [start = '', end = ''] = JSON.stringify({ ...CLAIMS, note: '@' }).split('"@"')
    return tokenOfText(head, Buffer.concat([start, note, end].map((part) => Buffer.from(part))))
  }
  const nested = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`
  t.equal(verdictOn(withNote('"\u00e9\ud83d\ude00"')), 'ok')
  t.equal(verdictOn(withNote('"\\ud83d\\ude00"')), 'ok', 'a pair of escapes is one character')
  t.equal(verdictOn(withNote(nested(15))), 'ok')
  t.equal(verdictOn(withNote(nested(16))), 'token_malformed')
  t.equal(verdictOn(withNote(nested(2500))), 'token_malformed')
  t.equal(verdictOn(withNote(Buffer.from([0x22, 0xff, 0x22]))), 'token_malformed', 'no UTF-8')
  t.equal(verdictOn(withNote(Buffer.from([0x22, 0xc0, 0xa2, 0x22]))), 'token_malformed', 'overlong')
  t.equal(verdictOn(withNote('"\\ud800"')), 'token_malformed', 'a lone surrogate')
  t.equal(verdictOn(withNote('{"\\udfff":1}')), 'token_malformed', 'a lone surrogate as a name')
})

test('the audience is a text or a list of texts', async (t) => {
  t.equal(verdictOn(tokenOf({ ...CLAIMS, aud: 'openclaw-gateway' })), 'ok')
  t.equal(verdictOn(tokenOf({ ...CLAIMS, aud: [] })), 'audience_mismatch')
  for (const aud of [7, null, {}, ['openclaw-gateway', 7], [['openclaw-gateway']]]) {
    t.equal(verdictOn(tokenOf({ ...CLAIMS, aud })), 'token_malformed', JSON.stringify(aud))
  }
})
