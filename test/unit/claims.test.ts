/** What the API server would not take is not taken here either, even under the cluster's own signature. */

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
/** A token whose head and body are these very texts. */
const tokenOfText = (head: string, body: string) =>
  [head, body, 'signature'].map((part) => Buffer.from(part).toString('base64url')).join('.')
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

test('members of the binding that are not read still have to be what a cluster writes', async (t) => {
  t.equal(verdictOn(tokenOf(bind({ warnafter: NOW_S }))), 'ok')
  t.equal(verdictOn(tokenOf(bind({ node: { name: 'node-1' } }))), 'ok')
  for (const changes of [
    { secret: { name: 'a', uid: 'b' } },
    { node: { name: 'node-1', uid: 7 } },
    { warnafter: 'soon' },
  ]) {
    t.equal(verdictOn(tokenOf(bind(changes))), 'token_malformed', JSON.stringify(changes))
  }
})
