/** The gateway is told who the worker is by the sidecar alone, each header exactly once. */

import { test } from 'tap'

import { localHostOf } from '@openclaw-k8s/auth-sidecar/lib/address.ts'
import type { Identity } from '@openclaw-k8s/auth-sidecar/identity.ts'
import {
  buildUpstreamRequest,
  type UpstreamRequestOptions,
} from '@openclaw-k8s/auth-sidecar/tunnel/headers.ts'

const identity: Identity = {
  namespace: 'openclaw',
  serviceAccount: 'openclaw-worker',
  podName: 'openclaw-worker-7d9f-abcde',
  podUid: '6f1c2b1e-0000-4000-8000-000000000001',
  nodeName: 'node-1',
  credentialId: '0e3a5b7c',
  expiresAt: 1_800_000_000,
}

const OPTIONS: UpstreamRequestOptions = {
  gatewayUrl: new URL('ws://127.0.0.1:18789/stream?via=sidecar#never'),
  workerAddress: '10.0.0.5',
  workerProto: 'https',
  forwardedHost: 'openclaw-gateway:18789',
  userAgent: 'openclaw-node/1.0',
  traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  subprotocols: ['openclaw.v4'],
  identity,
  role: 'node',
  assertion: 'aaa.bbb.ccc',
  key: 'dGhlIHNhbXBsZSBub25jZQ==',
}

/** The request as a strict reader sees it. */
function build(changes: Partial<UpstreamRequestOptions> = {}) {
  const { text } = buildUpstreamRequest({ ...OPTIONS, ...changes })
  const [requestLine, ...lines] = text.slice(0, -4).split('\r\n')
  const fields = lines.map((line) => {
    const [, name = '', value = ''] = /^([A-Za-z0-9-]+): ?(.*)$/.exec(line) ?? []
    return [name, value] as const
  })
  return { text, requestLine, fields, names: fields.map(([name]) => name) }
}

const valueOf = (changes: Partial<UpstreamRequestOptions>, name: string): string | undefined =>
  build(changes).fields.find(([field]) => field === name)?.[1]

test('the request carries exactly the listed headers, each once', async (t) => {
  const { requestLine, fields, text } = build()
  t.equal(requestLine, 'GET /stream?via=sidecar HTTP/1.1')
  t.ok(text.endsWith('\r\n\r\n'))
  t.same(Object.fromEntries(fields), {
    Host: '127.0.0.1:18789',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Protocol': 'openclaw.v4',
    'User-Agent': 'openclaw-node/1.0',
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    'X-Forwarded-Host': 'openclaw-gateway:18789',
    'X-Forwarded-For': '10.0.0.5',
    'X-Forwarded-Proto': 'https',
    'X-Forwarded-User': 'system:serviceaccount:openclaw:openclaw-worker',
    'X-OpenClaw-K8s-Namespace': 'openclaw',
    'X-OpenClaw-K8s-Service-Account': 'openclaw-worker',
    'X-OpenClaw-K8s-Pod-Name': 'openclaw-worker-7d9f-abcde',
    'X-OpenClaw-K8s-Pod-Uid': '6f1c2b1e-0000-4000-8000-000000000001',
    'X-OpenClaw-K8s-Node-Name': 'node-1',
    'X-OpenClaw-K8s-Role': 'node',
    'X-OpenClaw-K8s-Credential-Id': '0e3a5b7c',
    'X-OpenClaw-Scopes': '',
    'X-OpenClaw-K8s-Assertion': 'aaa.bbb.ccc',
  })
  const names = fields.map(([name]) => name.toLowerCase())
  t.equal(new Set(names).size, names.length)
})

test('unknown fields are left out, but the scopes are present and empty', async (t) => {
  const { names, text } = build({
    identity: { ...identity, nodeName: undefined, credentialId: undefined },
    userAgent: undefined,
    traceparent: undefined,
    subprotocols: [],
  })
  t.same(names, [
    'Host',
    'Connection',
    'Upgrade',
    'Sec-WebSocket-Version',
    'Sec-WebSocket-Key',
    'X-Forwarded-For',
    'X-Forwarded-Host',
    'X-Forwarded-Proto',
    'X-Forwarded-User',
    'X-OpenClaw-K8s-Namespace',
    'X-OpenClaw-K8s-Service-Account',
    'X-OpenClaw-K8s-Pod-Name',
    'X-OpenClaw-K8s-Pod-Uid',
    'X-OpenClaw-K8s-Role',
    'X-OpenClaw-Scopes',
    'X-OpenClaw-K8s-Assertion',
  ])
  t.match(text, /\r\nX-OpenClaw-Scopes:\r\n/)
})

const ADDRESSES = {
  '10.0.0.5': '10.0.0.5',
  '::ffff:10.0.0.5': '10.0.0.5',
  '::FFFF:10.0.0.5': '10.0.0.5',
  'fd00::5': 'fd00::5',
  'FD00::5': 'fd00::5',
  'fe80::1%eth0': 'fe80::1',
}

test('the worker address has one spelling', async (t) => {
  for (const [workerAddress, expected] of Object.entries(ADDRESSES)) {
    t.equal(valueOf({ workerAddress }, 'X-Forwarded-For'), expected, workerAddress)
  }
})

test('no request is built without the address of the worker', async (t) => {
  for (const workerAddress of ['', 'unknown', '10.0.0', '10.0.0.5, 127.0.0.1', '10.0.0.5\r\n']) {
    t.throws(() => build({ workerAddress }), /no IP address/)
  }
})

test('malformed values of the client are left out, and nothing is smuggled', async (t) => {
  const smuggled = 'x\r\nX-Forwarded-For: 127.0.0.1'
  const unclean: Record<string, Partial<UpstreamRequestOptions>[]> = {
    'User-Agent': [
      { userAgent: smuggled },
      { userAgent: 'a\nb' },
      { userAgent: 'a\0b' },
      { userAgent: 'a\u0085b' },
      { userAgent: 'a€b' },
      { userAgent: '' },
      { userAgent: 'a'.repeat(257) },
    ],
    traceparent: [
      { traceparent: smuggled },
      { traceparent: `ff-${'1'.repeat(32)}-${'1'.repeat(16)}-01` },
      { traceparent: `00-${'0'.repeat(32)}-${'1'.repeat(16)}-01` },
      { traceparent: `00-${'1'.repeat(32)}-${'0'.repeat(16)}-01` },
      { traceparent: `00-${'A'.repeat(32)}-${'1'.repeat(16)}-01` },
      { traceparent: `00-${'1'.repeat(32)}-${'1'.repeat(16)}-01-more` },
      { traceparent: `00-${'1'.repeat(32)}-${'1'.repeat(16)}-01\n` },
    ],
    'Sec-WebSocket-Protocol': [
      { subprotocols: [smuggled] },
      { subprotocols: ['a, b'] },
      { subprotocols: [''] },
      { subprotocols: ['base64url.bearer.authorization.k8s.io.ZXlK'] },
    ],
  }
  for (const [name, cases] of Object.entries(unclean)) {
    for (const changes of cases) {
      const { names, text } = build(changes)
      t.notOk(names.includes(name), JSON.stringify(changes))
      t.equal(names.filter((field) => field === 'X-Forwarded-For').length, 1)
      t.notMatch(text, /127\.0\.0\.1\r\n.*127\.0\.0\.1\r\n/s)
    }
  }
})

test('clean values of the client pass up to their limits', async (t) => {
  t.equal(valueOf({ userAgent: 'a'.repeat(256) }, 'User-Agent'), 'a'.repeat(256))
  t.equal(valueOf({ userAgent: 'caf\u00e9' }, 'User-Agent'), 'caf\u00e9')
  const subprotocols = ['b', 'Base64URL.Bearer.authorization.k8s.io.ZXlK', 'a', 'c d']
  t.equal(valueOf({ subprotocols }, 'Sec-WebSocket-Protocol'), 'b, a')
})

test('a value of ours that cannot be a header is a bug', async (t) => {
  const unclean: Partial<UpstreamRequestOptions>[] = [
    { role: 'node\r\nX-OpenClaw-Scopes: operator.admin' },
    { assertion: 'a\nb' },
    { identity: { ...identity, podName: 'a\r\nb' } },
    { identity: { ...identity, namespace: 'ä€' } },
    { forwardedHost: 'x\r\nX-Forwarded-For: 127.0.0.1' },
    { forwardedHost: 'a, b' },
    { forwardedHost: 'user@host' },
    { forwardedHost: '' },
    { key: '' },
    { key: 'dGhlIHNhbXBsZSBub25jZQ==\r\n' },
  ]
  for (const changes of unclean) t.throws(() => build(changes), Error, JSON.stringify(changes))
})

test('the forwarded host is the given name, in every form of a host', async (t) => {
  for (const forwardedHost of ['gateway.example', '10.0.0.1:18443', '[fd00::1]', '[fd00::1]:1']) {
    t.equal(valueOf({ forwardedHost }, 'X-Forwarded-Host'), forwardedHost)
  }
  const socket = (localAddress: string, localPort: number) => ({ localAddress, localPort })
  t.equal(localHostOf(socket('10.0.0.1', 18443)), '10.0.0.1:18443')
  t.equal(localHostOf(socket('::ffff:10.0.0.1', 18443)), '10.0.0.1:18443')
  t.equal(localHostOf(socket('FD00::1', 18443)), '[fd00::1]:18443')
  t.equal(localHostOf(socket('fe80::1%eth0', 18443)), '[fe80::1]:18443')
  t.equal(localHostOf({}), undefined, 'a socket that is gone')
})

test('extensions are never asked for', async (t) => {
  t.notMatch(build().text, /sec-websocket-extensions/i)
})
