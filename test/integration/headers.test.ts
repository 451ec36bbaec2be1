/** The gateway learns who a worker is only from the sidecar, whatever the worker claims. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import tap, { test } from 'tap'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { AUDIENCE, startRig } from '../kit/rig.ts'

const rig = await startRig({
  gateway: { behavior: 'subprotocol' },
  set: ['limits.failuresPerAddress=0'],
})
tap.teardown(() => rig.stop())
const pod = rig.createPod()
const token = rig.mint({ pod })

const OURS = [
  'X-Forwarded-For',
  'X-Forwarded-Proto',
  'X-Forwarded-Host',
  'X-Forwarded-User',
  'X-OpenClaw-K8s-Namespace',
  'X-OpenClaw-K8s-Service-Account',
  'X-OpenClaw-K8s-Pod-Name',
  'X-OpenClaw-K8s-Pod-Uid',
  'X-OpenClaw-K8s-Node-Name',
  'X-OpenClaw-K8s-Role',
  'X-OpenClaw-K8s-Credential-Id',
  'X-OpenClaw-Scopes',
  'X-OpenClaw-K8s-Assertion',
]
const OF_THE_UPGRADE = [
  'Host',
  'Connection',
  'Upgrade',
  'Sec-WebSocket-Version',
  'Sec-WebSocket-Key',
]

/** The request that the gateway received for a worker that sent `extra`, and the answer to the worker. */
const relay = async (extra: readonly string[] = [], path = '/') => {
  const arrival = rig.gateway.waitForHandshake()
  const answer = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines(path, [`Authorization: Bearer ${token}`, ...extra]),
  })
  answer.socket.destroy()
  const { rawHeaders, path: target } = await arrival
  const fields = rawHeaders.flatMap((name, at) =>
    at % 2 === 0 ? [[name, rawHeaders[at + 1] ?? ''] as const] : [],
  )
  const valuesOf = (name: string): readonly string[] =>
    fields.filter(([field]) => field.toLowerCase() === name.toLowerCase()).map(([, value]) => value)
  return { status: answer.status, answer, fields, target, valuesOf }
}

test('the gateway gets the identity in full, each header once, and nothing else', async (t) => {
  const { fields, valuesOf } = await relay()
  t.same(fields.map(([name]) => name).sort(), [...OF_THE_UPGRADE, ...OURS].sort())
  t.same(valuesOf('X-Forwarded-For'), ['127.0.0.11'])
  t.same(valuesOf('X-Forwarded-Proto'), ['http'])
  t.same(valuesOf('X-Forwarded-Host'), [`127.0.0.1:${rig.port}`])
  t.same(valuesOf('X-Forwarded-User'), ['system:serviceaccount:openclaw:openclaw-worker'])
  t.same(valuesOf('X-OpenClaw-K8s-Namespace'), ['openclaw'])
  t.same(valuesOf('X-OpenClaw-K8s-Service-Account'), ['openclaw-worker'])
  t.same(valuesOf('X-OpenClaw-K8s-Pod-Name'), ['worker-a'])
  t.same(valuesOf('X-OpenClaw-K8s-Pod-Uid'), [pod.metadata.uid])
  t.same(valuesOf('X-OpenClaw-K8s-Node-Name'), ['node-1'])
  t.same(valuesOf('X-OpenClaw-K8s-Role'), ['node'])
  // To the gateway a missing header would mean every scope.
  t.same(valuesOf('X-OpenClaw-Scopes'), [''])
  const { jti } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as {
    jti: string
  }
  t.same(valuesOf('X-OpenClaw-K8s-Credential-Id'), [jti], 'the value without its JTI= prefix')
})

test('no spelling of our headers passes, alone, repeated or among others', async (t) => {
  // CVE-2025-64484: `X_Forwarded_User` becomes the same variable in many a backend.
  const spellings = OURS.flatMap((name) => [
    name,
    name.toLowerCase(),
    name.toUpperCase(),
    name.replaceAll('-', '_'),
    name.replaceAll('-', '.'),
    name.replace('-', '_'),
  ])
  const forged = spellings.flatMap((name) => [`${name}: forged`, `${name}: forged twice`])
  const { fields, valuesOf } = await relay(forged)
  t.notMatch(JSON.stringify(fields), /forged/)
  t.same(fields.map(([name]) => name).sort(), [...OF_THE_UPGRADE, ...OURS].sort())
  for (const name of OURS) t.equal(valuesOf(name).length, 1, name)
})

test('a Connection header cannot remove our headers', async (t) => {
  // CVE-2026-33805, CVE-2022-31813, CVE-2025-48865: hop-by-hop headers dropped after injection.
  for (const listed of [OURS.join(', '), ...OURS, OURS.join(',').toLowerCase(), 'close, Host']) {
    const { fields } = await relay([`Connection: ${listed}`])
    const names = fields.map(([name]) => name)
    t.same(names.sort(), [...OF_THE_UPGRADE, ...OURS].sort(), listed)
  }
})

test('the worker address is the address of its socket, whatever headers say', async (t) => {
  // CVE-2026-3635, CVE-2026-53832, CVE-2026-35656: identity and locality by a forged header.
  const forged = [
    'X-Forwarded-For: 127.0.0.1',
    'X-Forwarded-For: 10.0.0.1, 127.0.0.1',
    'Forwarded: for=127.0.0.1;proto=https;host=admin',
    'X-Real-IP: 127.0.0.1',
    'True-Client-IP: 127.0.0.1',
    'CF-Connecting-IP: 127.0.0.1',
    'X-Client-IP: 127.0.0.1',
    'X-Cluster-Client-IP: 127.0.0.1',
    'X-Forwarded-Proto: https',
    'X-Forwarded-Host: admin',
    'X-Forwarded-Uri: /healthz',
    'X-Original-URL: /admin',
  ]
  const { valuesOf, fields } = await relay(forged)
  t.same(valuesOf('X-Forwarded-For'), ['127.0.0.11'])
  t.same(valuesOf('X-Forwarded-Proto'), ['http'])
  t.same(valuesOf('X-Forwarded-Host'), [`127.0.0.1:${rig.port}`])
  t.same(fields.map(([name]) => name).sort(), [...OF_THE_UPGRADE, ...OURS].sort())

  const other = rig.createPod('worker-b', '127.0.0.12')
  const arrival = rig.gateway.waitForHandshake()
  const worker = await rig.connect({
    token: rig.mint({ pod: other }),
    localAddress: '127.0.0.12',
    headers: { 'X-Forwarded-For': '127.0.0.11' },
  })
  t.ok(worker.ok)
  if (worker.ok) worker.socket.terminate()
  const { headers } = await arrival
  t.equal(headers['x-forwarded-for'], '127.0.0.12')
  t.equal(headers['x-openclaw-k8s-pod-name'], 'worker-b')
})

test('the forwarded host is ours, whatever host the worker sends', async (t) => {
  const hosts = [
    'gateway.example',
    'localhost:1',
    '[::1]',
    'admin, other',
    'a b',
    '"',
    'é',
    'user@h',
  ]
  for (const host of hosts) {
    const arrival = rig.gateway.waitForHandshake()
    const lines = upgradeLines('/', [`Authorization: Bearer ${token}`]).map((line) =>
      line.startsWith('Host:') ? `Host: ${host}` : line,
    )
    const answer = await rawUpgrade({ port: rig.port, localAddress: '127.0.0.11', lines })
    answer.socket.destroy()
    t.equal(answer.status, 101, host)
    const { rawHeaders } = await arrival
    const values = rawHeaders.filter(
      (_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === 'x-forwarded-host',
    )
    t.same(values, [`127.0.0.1:${rig.port}`], host)
  }
})

test('a configured host is forwarded in place of the address', async (t) => {
  const named = await startRig({ set: ['listen.publicHost=openclaw.example:443'] })
  t.teardown(() => named.stop())
  const arrival = named.gateway.waitForHandshake()
  const bearer = `Authorization: Bearer ${named.mint({ pod: named.createPod() })}`
  const lines = upgradeLines('/', [bearer, 'X-Forwarded-Host: admin'])
  const answer = await rawUpgrade({ port: named.port, localAddress: '127.0.0.11', lines })
  answer.socket.destroy()
  t.equal((await arrival).headers['x-forwarded-host'], 'openclaw.example:443')
})

test('credentials, cookies and everything else of the worker stay behind', async (t) => {
  const { fields } = await relay([
    'Cookie: session=canary',
    'Cookie2: canary',
    'Proxy-Authorization: Basic canary',
    'CF-Access-Client-Id: canary',
    'CF-Access-JWT-Assertion: canary',
    'X-API-Key: canary',
    'Origin: https://canary.example',
    'Referer: https://canary.example',
    'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits',
    'Keep-Alive: timeout=5',
    'TE: trailers',
    'Via: 1.1 canary',
    'X-OpenClaw-Role: node',
    'X-OpenClaw-Anything: canary',
    'Remote-User: canary',
  ])
  t.notMatch(JSON.stringify(fields), /canary|deflate|Bearer/)
  t.notOk(JSON.stringify(fields).includes(token))
  t.same(fields.map(([name]) => name).sort(), [...OF_THE_UPGRADE, ...OURS].sort())
})

test('user agent and trace context pass if they are well-formed, and are left out if not', async (t) => {
  const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
  const sound = await relay(['User-Agent: openclaw-node/2026.1', `traceparent: ${trace}`])
  t.same(sound.valuesOf('User-Agent'), ['openclaw-node/2026.1'])
  t.same(sound.valuesOf('traceparent'), [trace])
  for (const extra of [
    [`User-Agent: ${'a'.repeat(300)}`, 'traceparent: 00-0-0-01'],
    ['User-Agent: a', 'User-Agent: b', `traceparent: ${trace}`, `traceparent: ${trace}`],
    ['User-Agent:', `traceparent: ff${trace.slice(2)}`],
  ]) {
    const unsound = await relay(extra)
    t.equal(unsound.status, 101, 'they are not a reason to refuse')
    t.same(unsound.valuesOf('User-Agent'), [])
    t.same(unsound.valuesOf('traceparent'), [])
  }
})

test('the gateway sees the path of its configured URL, whatever the worker asks for', async (t) => {
  for (const path of ['/', '/admin/shutdown', '/?scopes=operator.admin&role=operator']) {
    t.equal((await relay([], path)).target, '/', path)
  }
})

test('the gateway chooses a subprotocol from those the worker offers besides its token', async (t) => {
  const shown = `base64url.bearer.authorization.k8s.io.${Buffer.from(token).toString('base64url')}`
  const offer = async (protocols: string) => {
    const arrival = rig.gateway.waitForHandshake()
    const answer = await rawUpgrade({
      port: rig.port,
      localAddress: '127.0.0.11',
      lines: upgradeLines('/', [`Sec-WebSocket-Protocol: ${protocols}`]),
    })
    answer.socket.destroy()
    t.equal(answer.status, 101, protocols)
    const { headers } = await arrival
    return [headers['sec-websocket-protocol'], answer.headers['sec-websocket-protocol']]
  }
  t.same(await offer(shown), [undefined, undefined], 'the token alone')
  t.same(await offer(`${shown}, openclaw.v4`), ['openclaw.v4', 'openclaw.v4'], 'the token first')
  t.same(await offer(`openclaw.v4, ${shown}`), ['openclaw.v4', 'openclaw.v4'], 'the token last')
  t.same(await offer(`a, ${shown}, b`), ['a, b', 'a'], 'the first of two')
  rig.gateway.setBehavior({ kind: 'subprotocol', name: 'b' }, { connections: 1 })
  t.same(await offer(`a, ${shown}, b`), ['a, b', 'b'], 'the second of two')
  rig.gateway.setBehavior('accept', { connections: 1 })
  t.same(await offer(`a, ${shown}, b`), ['a, b', undefined], 'none of two')

  const { valuesOf, answer } = await relay(['Sec-WebSocket-Protocol: chat'])
  t.same(valuesOf('Sec-WebSocket-Protocol'), ['chat'])
  t.equal(answer.headers['sec-websocket-protocol'], 'chat')

  rig.gateway.setBehavior('accept', { connections: 1 })
  const unchosen = await relay(['Sec-WebSocket-Protocol: chat'])
  t.equal(unchosen.answer.headers['sec-websocket-protocol'], undefined, 'none when it takes none')

  rig.gateway.setBehavior({ kind: 'subprotocol', name: 'c' }, { connections: 1 })
  const invented = await relay(['Sec-WebSocket-Protocol: a, b'])
  t.equal(invented.status, 502, 'one that was not offered')
})

test('the assertion is verifiable with the published key, and short-lived', async (t) => {
  const assertion = (await relay()).valuesOf('X-OpenClaw-K8s-Assertion')[0] ?? ''
  const keys = createRemoteJWKSet(new URL(`${rig.adminUrl}/.well-known/jwks.json`))
  const { payload, protectedHeader } = await jwtVerify(assertion, keys, {
    audience: AUDIENCE,
    algorithms: ['EdDSA'],
  })
  t.equal(protectedHeader.typ, 'JWT')
  t.equal(payload.sub, 'system:serviceaccount:openclaw:openclaw-worker')
  t.equal(payload['role'], 'node')
  t.match(payload['kubernetes.io'], {
    namespace: 'openclaw',
    serviceaccount: { name: 'openclaw-worker' },
    pod: { name: 'worker-a', uid: pod.metadata.uid },
  })
  t.ok((payload.exp ?? Infinity) - (payload.iat ?? 0) <= 60)
  const next = (await relay()).valuesOf('X-OpenClaw-K8s-Assertion')[0] ?? ''
  t.not((await jwtVerify(next, keys)).payload.jti, payload.jti, 'no two share an id')

  const text = await (await fetch(`${rig.adminUrl}/.well-known/jwks.json`)).text()
  t.notMatch(text, /"d"/, 'the private part is not published')
  const bent = `${assertion.slice(0, -4)}AAAA`
  await t.rejects(jwtVerify(bent, keys), { code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' })
})

test('without assertions the gateway gets the identity alone, and no key is published', async (t) => {
  const plain = await startRig({ set: ['gateway.assertion=false'] })
  t.teardown(() => plain.stop())
  const arrival = plain.gateway.waitForHandshake()
  const { status, socket } = await rawUpgrade({
    port: plain.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines('/', [
      `Authorization: Bearer ${plain.mint({ pod: plain.createPod() })}`,
      'X-OpenClaw-K8s-Assertion: forged',
    ]),
  })
  socket.destroy()
  t.equal(status, 101)
  const { headers } = await arrival
  t.equal(headers['x-openclaw-k8s-pod-name'], 'worker-a')
  t.equal(headers['x-openclaw-k8s-assertion'], undefined)
  const published = await fetch(`${plain.adminUrl}/.well-known/jwks.json`)
  t.same(await published.json(), { keys: [] })
})

test('a peer whose address is unknown is cut, and nothing of it reaches the gateway', async (t) => {
  const before = rig.gateway.handshakes.length
  const hideAddress = (message: unknown) => {
    const { socket } = message as { readonly socket: Socket }
    if (socket.localPort !== rig.port) return
    Object.defineProperty(socket, 'remoteAddress', { value: undefined })
  }
  subscribe('net.server.socket', hideAddress)
  t.teardown(() => unsubscribe('net.server.socket', hideAddress))
  const answer = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines('/', [`Authorization: Bearer ${token}`]),
  })
  t.equal(answer.status, 0, 'not a word')
  t.equal(rig.gateway.handshakes.length, before)
})
