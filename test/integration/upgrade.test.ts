/** Only a perfect WebSocket upgrade passes the worker port; everything else gets a fixed refusal. */

import { connect } from 'node:net'
import tap, { test, type Test } from 'tap'
import { CODES, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { rawFrame, readFrames } from '../kit/raw-frames.ts'
import { rawUpgrade, upgradeLines, type RawAnswer } from '../kit/raw-upgrade.ts'
import { startRig } from '../kit/rig.ts'

const rig = await startRig({ set: ['limits.failuresPerAddress=0'] })
tap.teardown(() => rig.stop())
const pod = rig.createPod()
// Every request below comes from a good worker: only its form can be refused.
const AUTHORIZATION = `Authorization: Bearer ${rig.mint({ pod })}`

const send = (lines: readonly string[]): Promise<RawAnswer> =>
  rawUpgrade({ port: rig.port, localAddress: '127.0.0.11', lines })

const sendBytes = (bytes: string | Buffer): Promise<RawAnswer> =>
  rawUpgrade({ port: rig.port, localAddress: '127.0.0.11', bytes })

/** A correct upgrade without the lines of `names`, and with others. */
const bent = (names: readonly string[], ...extra: readonly string[]): readonly string[] => [
  ...upgradeLines('/', [AUTHORIZATION]).filter(
    (line) => !names.some((name) => line.toLowerCase().startsWith(`${name.toLowerCase()}:`)),
  ),
  ...extra,
]

const plain = (requestLine: string, ...extra: readonly string[]): readonly string[] => [
  requestLine,
  'Host: localhost',
  AUTHORIZATION,
  ...extra,
]

const nameOf = (lines: readonly string[]): string =>
  lines.filter((line) => line !== AUTHORIZATION).join(' | ')

/** The answer is exactly that of the table, and ends the connection. */
const refusedWith = (t: Test, answer: RawAnswer, code: Code, name: string) => {
  t.equal(answer.status, CODES[code].status, `${name}: status`)
  t.same(
    JSON.parse(answer.body || '{}'),
    { error: { type: code, message: CODES[code].message } },
    `${name}: body`,
  )
  t.match(answer.headers['connection'], /close/, `${name}: the connection ends`)
  t.equal(answer.headers['cache-control'], 'no-store', `${name}: not to be cached`)
}

test('a correct upgrade passes, however its header names and tokens are spelled', async (t) => {
  for (const lines of [
    bent([]),
    bent(['connection'], 'connection: keep-alive, UPGRADE'),
    bent(['upgrade'], 'UPGRADE: WebSocket'),
    bent([], 'Origin: https://elsewhere.example'),
    upgradeLines('/a/b.c/~d?x=1&y=%41', [AUTHORIZATION]),
  ]) {
    const answer = await send(lines)
    t.equal(answer.status, 101, nameOf(lines))
    // RFC 6455 §1.3: the accept for the key of the RFC's own example.
    t.equal(answer.headers['sec-websocket-accept'], 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
    answer.socket.destroy()
  }
})

test('an upgrade that bends RFC 6455 is refused before anything reaches the gateway', async (t) => {
  const before = rig.gateway.handshakes.length
  const cases: readonly (readonly [Code, readonly string[]])[] = [
    ['upgrade_malformed', bent(['connection'])],
    ['upgrade_malformed', bent(['connection'], 'Connection: keep-alive')],
    ['upgrade_required', bent(['upgrade'])],
    ['upgrade_required', bent(['upgrade'], 'Upgrade: h2c')],
    ['upgrade_required', bent(['upgrade'], 'Upgrade: websocket, h2c')],
    ['version_not_supported', bent(['sec-websocket-version'])],
    ['version_not_supported', bent(['sec-websocket-version'], 'Sec-WebSocket-Version: 8')],
    ['version_not_supported', bent(['sec-websocket-version'], 'Sec-WebSocket-Version: 1337')],
    ['version_not_supported', bent(['sec-websocket-version'], 'Sec-WebSocket-Version: 13, 8')],
    ['version_not_supported', bent([], 'Sec-WebSocket-Version: 13')],
    ['upgrade_malformed', bent(['sec-websocket-key'])],
    ['upgrade_malformed', bent(['sec-websocket-key'], 'Sec-WebSocket-Key: short')],
    ['upgrade_malformed', bent(['sec-websocket-key'], 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ')],
    ['upgrade_malformed', bent([], 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==')],
    ['upgrade_malformed', bent(['host'])],
    ['upgrade_malformed', bent([], 'Host: elsewhere')],
    ['upgrade_malformed', bent([], 'Content-Length: 0')],
    ['upgrade_malformed', bent([], 'Content-Length: 5')],
    ['upgrade_malformed', bent([], 'Transfer-Encoding: chunked')],
    ['upgrade_malformed', bent([], 'Sec-WebSocket-Protocol: a, a')],
    ['upgrade_malformed', bent([], 'Sec-WebSocket-Protocol: a,,b')],
    ['upgrade_malformed', bent([], 'Sec-WebSocket-Protocol: a b')],
    ['upgrade_malformed', ['GET / HTTP/1.0', ...bent([]).slice(1)]],
  ]
  for (const [code, lines] of cases) refusedWith(t, await send(lines), code, nameOf(lines))
  t.equal(rig.gateway.handshakes.length, before)
  const version = await send(bent(['sec-websocket-version'], 'Sec-WebSocket-Version: 8'))
  t.equal(version.headers['sec-websocket-version'], '13', 'the version to use is told')
})

test('a request target that two servers could read in two ways is refused', async (t) => {
  // GHSA-pxq7-h93f-9jrg, GHSA-7rh7-c77v-6434, CVE-2023-37918.
  for (const target of [
    '//',
    '/a//b',
    '/a/../b',
    '/..',
    '/./a',
    '/a/%2e%2e/b',
    '/a%2Fb',
    '/a%5cb',
    '/a\\b',
    '/a;b=c',
    '/a%00',
    '/a%zz',
    '/a#b',
    '/?a#b',
    '*',
    'a',
    'http://localhost/',
    'http://127.0.0.1:18789/admin',
    `/${'a'.repeat(5000)}`,
  ]) {
    const [requestLine = '', ...rest] = bent([])
    const answer = await send([requestLine.replace(' / ', ` ${target} `), ...rest])
    // Some are not HTTP at all to the parser, which has its own code for that.
    t.equal(answer.status, 400, target)
    t.match(answer.body, /target_not_canonical|upgrade_malformed/, target)
  }
})

test('a method other than GET is not allowed, and nothing of a TRACE is reflected', async (t) => {
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND']) {
    for (const lines of [
      plain(`${method} / HTTP/1.1`, 'X-Canary: reflected'),
      [`${method} / HTTP/1.1`, ...bent([], 'X-Canary: reflected').slice(1)],
    ]) {
      const answer = await send(lines)
      refusedWith(t, answer, 'method_not_allowed', nameOf(lines))
      t.equal(answer.headers['allow'], 'GET')
      t.notMatch(answer.raw, /reflected/)
    }
  }
  const connection = await send(plain('CONNECT 127.0.0.1:18789 HTTP/1.1'))
  refusedWith(t, connection, 'method_not_allowed', 'CONNECT')
  const head = await send(plain('HEAD / HTTP/1.1'))
  t.equal(head.status, 405, 'HEAD')
})

test('plain HTTP is asked to upgrade, without exception for any path, probe or user agent', async (t) => {
  const before = rig.gateway.handshakes.length
  for (const path of ['/', '/metrics', '/livez', '/readyz', '/version', '/.well-known/jwks.json']) {
    for (const agent of ['curl/8', 'kube-probe/1.35', 'GoogleHC/1.0']) {
      // GHSA-5hvv-m4w4-gf6v: a health check's user agent was let past the authentication.
      const answer = await send(plain(`GET ${path} HTTP/1.1`, `User-Agent: ${agent}`))
      refusedWith(t, answer, 'upgrade_required', `${path} by ${agent}`)
      t.equal(answer.headers['upgrade'], 'websocket')
    }
  }
  t.equal(rig.gateway.handshakes.length, before)
})

test('a request with an expectation gets the refusal and nothing before it', async (t) => {
  for (const expectation of ['100-continue', '100-Continue', 'the-unexpected']) {
    const expect = `Expect: ${expectation}`
    for (const [lines, code] of [
      [plain('GET / HTTP/1.1', expect), 'upgrade_required'],
      [plain('GET / HTTP/1.1', expect, 'Content-Length: 10'), 'upgrade_required'],
      [bent(['connection'], expect), 'upgrade_malformed'],
    ] as const) {
      refusedWith(t, await send(lines), code, nameOf(lines))
    }
  }
})

test('what is not HTTP/1.1 is refused with an answer and cut', async (t) => {
  for (const bytes of [
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'SSH-2.0-OpenSSH_9.9\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'PROXIES',
    Buffer.from([0x16, 0x02, 0x00]),
  ]) {
    refusedWith(t, await sendBytes(bytes), 'upgrade_malformed', JSON.stringify(bytes.toString()))
  }
})

const REQUEST = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'
const PROXY_V2 = Buffer.from('0d0a0d0a000d0a515549540a2111000c7f0000017f000001c3504805', 'hex')

const FOREIGN: Readonly<Record<string, readonly [string | Buffer, Code]>> = {
  'PROXY protocol version 1': [
    `PROXY TCP4 10.0.0.1 10.0.0.2 56324 18443\r\n${REQUEST}`,
    'proxy_protocol_unexpected',
  ],
  'its form for an unknown client': [`PROXY UNKNOWN\r\n${REQUEST}`, 'proxy_protocol_unexpected'],
  'PROXY protocol version 2': [
    Buffer.concat([PROXY_V2, Buffer.from(REQUEST)]),
    'proxy_protocol_unexpected',
  ],
  'the greeting of a TLS client': [
    Buffer.from([0x16, 0x03, 0x01, 0x00, 0xa5, 0x01, 0x00]),
    'tls_unexpected',
  ],
}

for (const [name, [bytes, code]] of Object.entries(FOREIGN)) {
  test(`${name} on the plain port is refused by name`, async (t) => {
    const key = `openclaw_k8s_upgrades_refused_total{code="${code}"}`
    const before = (await rig.metrics()).get(key) ?? NaN
    refusedWith(t, await sendBytes(bytes), code, name)
    t.equal((await rig.metrics()).get(key), before + 1)
  })
}

test('a head of more than 16 KiB is refused, and one just below passes', async (t) => {
  const padded = (bytes: number) => bent([], `X-Padding: ${'a'.repeat(bytes)}`)
  const bomb = await send(padded(17_000))
  refusedWith(t, bomb, 'head_too_large', 'one long header')
  // If they were cut off instead, a second credential could hide behind them.
  const many = Array.from({ length: 1500 }, () => 'a:b')
  const crowd = await send(bent([], ...many, AUTHORIZATION))
  refusedWith(t, crowd, 'head_too_large', 'many short headers')
  const room = 256 - upgradeLines().length
  const few = await send(bent([], ...many.slice(0, room)))
  t.equal(few.status, 101, '256 headers')
  few.socket.destroy()
  const over = await send(bent([], ...many.slice(0, room + 1)))
  refusedWith(t, over, 'head_too_large', '257 headers')
  const passed = await send(padded(14_000))
  t.equal(passed.status, 101)
  passed.socket.destroy()
})

test('only the first request in a segment is handled', async (t) => {
  const refused = async () =>
    [...(await rig.metrics())]
      .filter(([name]) => name.startsWith('openclaw_k8s_upgrades_refused_total'))
      .reduce((sum, [, count]) => sum + count, 0)
  const heads = ['GET / HTTP/1.1', 'POST / HTTP/1.1\r\nContent-Length: 1', 'CONNECT a:1 HTTP/1.1']
  for (const head of heads) {
    const before = await refused()
    const bytes = `${head}\r\nHost: x\r\n\r\n${head.startsWith('POST') ? 'x' : ''}`.repeat(500)
    const { raw } = await rawUpgrade({ port: rig.port, localAddress: '127.0.0.11', bytes })
    t.equal(raw.match(/HTTP\/1\.1 /g)?.length, 1)
    t.equal(await refused(), before + 1, head)
  }
})

test('a request pipelined behind a refused one is never answered', async (t) => {
  const before = rig.gateway.handshakes.length
  const socket = connect({ port: rig.port, host: '127.0.0.1', localAddress: '127.0.0.11' })
  const first = plain('GET / HTTP/1.1').join('\r\n')
  socket.write(`${first}\r\n\r\n${bent([]).join('\r\n')}\r\n\r\n`)
  let text = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    text += chunk
  })
  socket.on('error', () => {})
  await new Promise((resolve) => socket.once('close', resolve))
  t.equal(text.match(/HTTP\/1\.1 /g)?.length, 1)
  t.match(text, /^HTTP\/1\.1 426 /)
  t.equal(rig.gateway.handshakes.length, before)
})

test('one request of a chunk with thousands is parsed, answered and counted', async (t) => {
  const refusals = async () => {
    const metrics = await rig.metrics()
    return [...metrics]
      .filter(([name]) => name.startsWith('openclaw_k8s_upgrades_refused_total'))
      .reduce((sum, [, count]) => sum + count, 0)
  }
  const before = await refusals()
  const get = 'GET / HTTP/1.1\r\n\r\n'
  t.equal((await sendBytes(get.repeat(3000))).status, 426)
  t.equal(await refusals(), before + 1)
  const chunked = 'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n'
  t.equal((await sendBytes(`${chunked}${'1\r\na\r\n'.repeat(9000)}`)).status, 405)
  t.equal(await refusals(), before + 2)
})

test('bytes that came with the upgrade reach the gateway as they were sent', async (t) => {
  const heads = 'GET / HTTP/1.1\r\n\r\n'.repeat(1000)
  const request = {
    type: 'connect.request',
    authMode: 'k8s-sa',
    saToken: rig.mint({ pod }),
    role: 'node',
  }
  const shown = Buffer.from(`${bent([]).join('\r\n')}\r\n\r\n`)
  const inBand = Buffer.concat([
    Buffer.from(`${bent(['authorization']).join('\r\n')}\r\n\r\n`),
    rawFrame({ payload: JSON.stringify(request) }),
  ])
  for (const start of [shown, inBand]) {
    // A mask of zeros: the payload is in the chunk as it is, and looks like requests.
    const frame = rawFrame({ payload: heads, isMasked: false })
    const masked = Buffer.concat([frame.subarray(0, 4), Buffer.alloc(4), frame.subarray(4)])
    masked.writeUInt8(masked.readUInt8(1) | 0x80, 1)
    const answer = await sendBytes(Buffer.concat([start, masked, rawFrame({ first: 0x88 })]))
    t.equal(answer.status, 101)
    const echo = (await readFrames(answer.socket)).find(
      ({ payload }) => payload.toString() === heads,
    )
    t.ok(echo, 'the gateway has sent back what it was sent')
  }
})
