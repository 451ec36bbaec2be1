/** Which requests at the port of `connect` may use the pod's identity: a few, and no browser's. */

import { test } from 'tap'
import {
  BODY_BYTES_MAX,
  judgeRequest,
  type GuardedRequest,
} from '@openclaw-k8s/auth-sidecar/connect/guard.ts'

type Headers = Readonly<Record<string, string | readonly string[]>>

const HASH = '0123456789abcdef'.repeat(4)
const BUNDLE = `/__openclaw__/worker-bundle/v1/bundles/${HASH}`
const UPLOAD = `/__openclaw__/worker-transfer/v1/environments/worker%3A5f2c/reconciliations/${HASH}`
const WORKER = '/__openclaw__/worker'
const HOST = { Host: '127.0.0.1:18789' }
const AUTHORIZATION = { Authorization: 'Bearer the-gateways-own' }
const UPGRADE = {
  ...HOST,
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
}

const requestOf = (url: string, headers: Headers, method = 'GET'): GuardedRequest => {
  const pairs = Object.entries(headers).flatMap(([name, value]) =>
    [value].flat().map((each) => [name, each] as const),
  )
  const distinct: Record<string, string[]> = {}
  for (const [name, value] of pairs) (distinct[name.toLowerCase()] ??= []).push(value)
  return {
    method,
    url,
    httpVersion: '1.1',
    rawHeaders: pairs.flat(),
    headersDistinct: distinct,
  }
}

const codeOf = (request: GuardedRequest, hosting = true): string => {
  const judgement = judgeRequest(request, hosting)
  return judgement.ok ? judgement.value.kind : judgement.code
}

test('the WebSocket at / goes on, by every loopback name and with any port', async (t) => {
  const names = ['localhost', 'LOCALHOST', '127.0.0.1', '127.0.0.2', '[::1]', '[0:0::1]']
  for (const name of names) {
    for (const host of [name, `${name}:1`, `${name}:65535`]) {
      t.equal(codeOf(requestOf('/', { ...UPGRADE, Host: host }), false), 'stream', host)
    }
  }
})

test('a Host that is not a loopback name is refused, and so are two and none', async (t) => {
  const hosts: readonly (string | readonly string[])[] = [
    'rebind.example',
    'localhost.example',
    'example.localhost',
    '127.0.0.1.example',
    '127.0.0.1:80:80',
    '127.0.0.1@example',
    '127.1',
    '2130706433',
    '0.0.0.0',
    '10.0.0.1',
    '999.0.0.1',
    '[::]',
    '[::2]',
    '::1',
    '',
    ' localhost',
    'localhost:',
    'localhost:123456',
    ['127.0.0.1', '127.0.0.1'],
    ['127.0.0.1', 'rebind.example'],
  ]
  for (const host of hosts) {
    t.equal(codeOf(requestOf('/', { ...UPGRADE, Host: host })), 'host_not_loopback', String(host))
  }
  const { Host: _, ...without } = UPGRADE
  t.equal(codeOf(requestOf('/', without)), 'host_not_loopback')
})

test('a request with an Origin is refused, whatever it is and wherever it goes', async (t) => {
  const origins = ['null', '', 'http://127.0.0.1:18789', 'file://', 'https://example.com']
  const paths = [
    ['/', UPGRADE],
    [WORKER, UPGRADE],
    [BUNDLE, { ...HOST, ...AUTHORIZATION }],
  ] as const
  for (const origin of origins) {
    for (const [path, headers] of paths) {
      const judged = codeOf(requestOf(path, { ...headers, Origin: origin }))
      t.equal(judged, 'origin_not_allowed', `${origin} ${path}`)
    }
  }
  t.equal(codeOf(requestOf('/', { ...UPGRADE, Origin: ['a', 'b'] })), 'origin_not_allowed')
})

test('what a page can send without an Origin gets nothing: neither an upgrade nor a credential', async (t) => {
  t.equal(codeOf(requestOf('/', HOST)), 'upgrade_required')
  t.equal(codeOf(requestOf('/', HOST, 'HEAD')), 'method_not_allowed')
  t.equal(codeOf(requestOf(WORKER, HOST)), 'path_not_served')
  t.equal(codeOf(requestOf(BUNDLE, HOST)), 'authorization_missing')
  t.equal(
    codeOf(requestOf(BUNDLE, { ...HOST, Authorization: 'Basic YTpi' })),
    'authorization_missing',
  )
  t.equal(codeOf(requestOf('/favicon.ico', HOST)), 'path_not_served')
})

test('only / and the routes of session hosting are served', async (t) => {
  const paths = ['/?', '/?a=b', '//', '/.', '/ws', '*', 'http://127.0.0.1/', '/%2F', '']
  for (const path of paths) t.equal(codeOf(requestOf(path, UPGRADE)), 'path_not_served', path)
  t.equal(codeOf(requestOf(`${WORKER}?a=b`, UPGRADE)), 'path_not_served')
  t.equal(codeOf(requestOf(`${BUNDLE}/`, { ...HOST, ...AUTHORIZATION })), 'path_not_served')
})

test('the routes of session hosting are served only where they are switched on', async (t) => {
  const routes = [
    ['stream', WORKER, 'GET', UPGRADE],
    ['exchange', BUNDLE, 'GET', { ...HOST, ...AUTHORIZATION }],
    ['exchange', UPLOAD, 'POST', { ...HOST, ...AUTHORIZATION, 'Content-Length': '3' }],
  ] as const
  for (const [kind, path, method, headers] of routes) {
    t.equal(codeOf(requestOf(path, headers, method), true), kind, path)
    t.equal(codeOf(requestOf(path, headers, method), false), 'path_not_served', path)
  }
})

test("the gateway's credential goes on only on the routes of session hosting", async (t) => {
  const authorizationOf = (path: string) => {
    const judgement = judgeRequest(requestOf(path, { ...UPGRADE, ...AUTHORIZATION }), true)
    return judgement.ok ? judgement.value.authorization : judgement.code
  }
  t.equal(authorizationOf('/'), undefined)
  t.equal(authorizationOf(WORKER), AUTHORIZATION.Authorization)
  const twice = { Authorization: ['Bearer a', 'Bearer b'] }
  t.equal(codeOf(requestOf(WORKER, { ...UPGRADE, ...twice })), 'authorization_missing')
  t.equal(codeOf(requestOf(BUNDLE, { ...HOST, ...twice })), 'authorization_missing')
})

test('a body needs a known length within the limit, and only a POST has one', async (t) => {
  const headers = { ...HOST, ...AUTHORIZATION }
  const upload = (extra: Headers) => codeOf(requestOf(UPLOAD, { ...headers, ...extra }, 'POST'))
  t.equal(upload({ 'Content-Length': '0' }), 'exchange')
  t.equal(upload({ 'Content-Length': String(BODY_BYTES_MAX) }), 'exchange')
  t.equal(upload({ 'Content-Length': String(BODY_BYTES_MAX + 1) }), 'body_too_large')
  t.equal(upload({}), 'length_required')
  t.equal(upload({ 'Transfer-Encoding': 'chunked' }), 'length_required')
  t.equal(upload({ 'Content-Length': '1', 'Transfer-Encoding': 'chunked' }), 'length_required')
  t.equal(upload({ 'Content-Length': ['1', '1'] }), 'length_required')
  t.equal(upload({ 'Content-Length': '1e3' }), 'length_required')
  t.equal(codeOf(requestOf(BUNDLE, { ...headers, 'Content-Length': '1' })), 'length_required')
})

test('an upgrade has no body, one key and the version of RFC 6455', async (t) => {
  const upgrade = (extra: Headers) => codeOf(requestOf('/', { ...UPGRADE, ...extra }))
  t.equal(upgrade({ 'Content-Length': '1' }), 'upgrade_malformed')
  t.equal(upgrade({ 'Transfer-Encoding': 'chunked' }), 'upgrade_malformed')
  t.equal(upgrade({ 'Sec-WebSocket-Version': '8' }), 'version_not_supported')
  t.equal(upgrade({ 'Sec-WebSocket-Key': 'short' }), 'upgrade_malformed')
  t.equal(upgrade({ Upgrade: 'h2c' }), 'upgrade_required')
  t.equal(codeOf(requestOf('/', UPGRADE, 'POST')), 'method_not_allowed')
})

test('more headers than Node keeps are refused', async (t) => {
  const many = Object.fromEntries(Array.from({ length: 260 }, (_, n) => [`X-${n}`, 'a']))
  t.equal(codeOf(requestOf('/', { ...UPGRADE, ...many })), 'head_too_large')
})

test('an upload that waits for a 100 Continue is refused, since nobody sends one', async (t) => {
  const upload = { ...HOST, ...AUTHORIZATION, 'Content-Length': '5' }
  t.equal(codeOf(requestOf(UPLOAD, upload, 'POST')), 'exchange')
  for (const Expect of ['100-continue', 'something']) {
    const code = codeOf(requestOf(UPLOAD, { ...upload, Expect }, 'POST'))
    t.equal(code, 'session_hosting_malformed')
  }
})
