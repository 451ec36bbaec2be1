/** The port of `connect`: it lends the pod's identity to workers, and to nobody who only reaches it. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request as requestOver } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import { fieldsOf, openingTo, startConnectRig, TOKEN, type Scope } from '../kit/connect-rig.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { waitUntil } from '../kit/wait.ts'

const HEAD_MS_MAX = 5000
const CONNECTIONS_MAX = 256
const WAITING_MAX = 64
const errorOf = (body: string) => (JSON.parse(body) as { error: { type: string } }).error.type

/** The path of a Unix socket has at most 107 characters. */
const shortDirectory = (t: Scope): string => {
  const directory = mkdtempSync(join(tmpdir(), 'connect-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

test('a worker needs no token: connect shows the one of the pod', async (t) => {
  const rig = await startConnectRig(t)
  const { status, socket } = await rig.upgrade()
  t.equal(status, 101)
  t.equal(rig.requests[0]?.headers['x-openclaw-sa-token'], TOKEN)
  socket.destroy()
})

test('the request to the sidecar is built: no credential and no identity of the worker is in it', async (t) => {
  const rig = await startConnectRig(t, { role: 'node', sessionHosting: true })
  const sent = [
    'Authorization: Bearer stolen',
    'X-OpenClaw-SA-Token: stolen',
    'CF-Access-Client-Id: stolen',
    'CF-Access-Client-Secret: stolen',
    'Cookie: stolen',
    'Proxy-Authorization: stolen',
    'X-Forwarded-For: 10.0.0.1',
    'X-Forwarded-User: stolen',
    'X-Real-IP: 10.0.0.1',
    'Forwarded: for=10.0.0.1',
    'X-OpenClaw-K8s-Pod-Name: stolen',
    'X-OpenClaw-Role: operator',
    'X-OpenClaw-Scopes: stolen',
    'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits',
    'Sec-WebSocket-Protocol: chat, base64url.bearer.authorization.k8s.io.c3RvbGVu',
    'User-Agent: a worker',
    'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  ]
  const { socket } = await rig.upgrade(sent)
  t.strictSame(fieldsOf(rig.requests[0]), [
    `Host: 127.0.0.1:${rig.upstreamPort}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Protocol: chat',
    'User-Agent: a worker',
    'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    'X-OpenClaw-Role: node',
    `X-OpenClaw-SA-Token: ${TOKEN}`,
  ])
  socket.destroy()
})

test('the subprotocol that the gateway chose reaches the worker, and only one it offered', async (t) => {
  const offer = 'Sec-WebSocket-Protocol: chat, other'
  for (const [chosen, status] of [
    ['other', 101],
    ['unknown', 502],
  ] as const) {
    const rig = await startConnectRig(t, {
      onUpgrade: (request, socket) =>
        socket.write(openingTo(request, [`Sec-WebSocket-Protocol: ${chosen}`])),
    })
    const answer = await rig.upgrade([offer])
    t.equal(answer.status, status)
    if (status === 101) t.equal(answer.headers['sec-websocket-protocol'], chosen)
    answer.socket.destroy()
  }
})

test('a refused request never reaches the sidecar, and is told why', async (t) => {
  const rig = await startConnectRig(t)
  const host = (name: string) =>
    upgradeLines().map((line) => (line.startsWith('Host') ? `Host: ${name}` : line))
  const cases = [
    [403, 'origin_not_allowed', upgradeLines('/', ['Origin: null'])],
    [403, 'origin_not_allowed', upgradeLines('/', ['Origin: https://example.com'])],
    [403, 'host_not_loopback', host('rebind.example')],
    [403, 'host_not_loopback', upgradeLines('/', ['Host: rebind.example'])],
    [403, 'host_not_loopback', upgradeLines().filter((line) => !line.startsWith('Host'))],
    [404, 'path_not_served', upgradeLines('/other')],
    [404, 'path_not_served', upgradeLines('/__openclaw__/worker')],
    [426, 'upgrade_required', ['GET / HTTP/1.1', 'Host: localhost']],
    [405, 'method_not_allowed', ['POST / HTTP/1.1', 'Host: localhost', 'Content-Length: 0']],
    [400, 'upgrade_malformed', upgradeLines('/', ['Content-Length: 4'])],
    [400, 'upgrade_malformed', upgradeLines('/', ['Transfer-Encoding: chunked'])],
    [426, 'version_not_supported', upgradeLines().map((line) => line.replace(': 13', ': 8'))],
    [405, 'method_not_allowed', ['POST / HTTP/1.1', 'Host: localhost', 'Expect: 100-continue']],
  ] as const
  for (const [status, code, lines] of cases) {
    const answer = await rawUpgrade({ port: rig.port, lines })
    t.equal(answer.status, status, lines.join(' '))
    t.equal(errorOf(answer.body), code)
    t.equal(answer.headers['connection'], 'close')
    t.equal(answer.headers['access-control-allow-origin'], undefined)
    answer.socket.destroy()
  }
  t.equal(rig.requests.length, 0)
  t.equal(rig.upstreamSockets.size, 0)
})

test('what is not HTTP, and a head that two parsers read differently, never reaches the sidecar', async (t) => {
  const rig = await startConnectRig(t)
  const both = upgradeLines('/', ['Content-Length: 4', 'Transfer-Encoding: chunked'])
  const attempts = [
    '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
    'GET / HTTP/1.1\nHost: 127.0.0.1\n\n',
    'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n folded: yes\r\n\r\n',
    'GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n',
    'CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    `${both.join('\r\n')}\r\n\r\n0\r\n\r\n`,
    `GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`,
  ]
  for (const bytes of attempts) {
    const { status, socket } = await rawUpgrade({ port: rig.port, bytes })
    t.ok(status === 0 || status >= 400, JSON.stringify(bytes.slice(0, 40)))
    socket.destroy()
  }
  t.equal(rig.requests.length, 0)
})

test('a connection serves one request: a second one behind it ends it', async (t) => {
  const rig = await startConnectRig(t)
  const refused = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'
  const good = `${upgradeLines().join('\r\n')}\r\n\r\n`
  const { socket } = await rawUpgrade({ port: rig.port, bytes: refused + good })
  if (!socket.closed) await once(socket.resume(), 'close')
  t.equal(rig.requests.length, 0)
})

test('bytes behind an upgrade are the stream: they are not read as a request', async (t) => {
  const rig = await startConnectRig(t)
  const bytes = `${upgradeLines().join('\r\n')}\r\n\r\nGET / HTTP/1.1\r\n\r\n`
  const { status, socket } = await rawUpgrade({ port: rig.port, bytes })
  t.equal(status, 101)
  const [echoed] = (await once(socket.resume(), 'data')) as [Buffer]
  t.equal(echoed.toString(), 'GET / HTTP/1.1\r\n\r\n')
  t.equal(rig.requests.length, 1)
  socket.destroy()
})

test('a head that does not come in time ends its connection', async (t) => {
  const clock = new FakeClock()
  const rig = await startConnectRig(t, { clock })
  const silent = await rig.dial()
  const slow = await rig.dial()
  slow.write('GET / HTTP/1.1\r\nHost: local')
  await waitUntil(() => clock.pending >= 2)
  clock.advance(HEAD_MS_MAX - 1)
  slow.write('host\r\n')
  const answered = await rig.upgrade()
  t.equal(answered.status, 101, 'others are served meanwhile')
  t.notOk(silent.destroyed || slow.destroyed)
  clock.advance(1)
  await Promise.all([once(silent.resume(), 'close'), once(slow.resume(), 'close')])
  answered.socket.destroy()
})

test('connections without a request cannot keep a worker out: the oldest of them goes', async (t) => {
  const rig = await startConnectRig(t)
  const idle = []
  for (let n = 0; n < WAITING_MAX; n += 1) idle.push(await rig.dial())
  const [oldest, second] = idle
  const gone = once(oldest!.resume(), 'close')
  const { status, socket } = await rig.upgrade()
  t.equal(status, 101)
  await gone
  t.notOk(second!.destroyed)
  for (const each of [...idle, socket]) each.destroy()
})

test('connections are bounded, open streams included, and a place that is left is free again', async (t) => {
  const rig = await startConnectRig(t)
  const streams = []
  for (let n = 0; n < CONNECTIONS_MAX; n += 1) streams.push((await rig.upgrade()).socket)
  t.equal((await rig.upgrade()).status, 0)
  streams[0]?.destroy()
  await waitUntil(() => rig.upstreamSockets.size < CONNECTIONS_MAX)
  const { status, socket } = await rig.upgrade()
  t.equal(status, 101)
  for (const each of [...streams, socket]) each.destroy()
})

test('a peer that resets its connection, at any moment, ends nothing else', async (t) => {
  const rig = await startConnectRig(t)
  const { socket: other } = await rig.upgrade()
  const requests = ['', 'GET / HT', 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n']
  for (const bytes of [...requests, `${upgradeLines().join('\r\n')}\r\n\r\nearly`]) {
    const socket = await rig.dial()
    if (bytes !== '') socket.write(bytes)
    socket.resetAndDestroy()
  }
  await waitUntil(() => rig.upstreamSockets.size === 1)
  other.write('still here')
  const [echoed] = (await once(other.resume(), 'data')) as [Buffer]
  t.equal(echoed.toString(), 'still here')
  other.destroy()
})

test('the token is read for each connection, so a new one has the rotated token', async (t) => {
  const rig = await startConnectRig(t)
  const first = await rig.upgrade()
  rig.writeToken('the.rotated.token')
  const second = await rig.upgrade()
  const shown = rig.requests.map(({ headers }) => headers['x-openclaw-sa-token'])
  t.strictSame(shown, [TOKEN, 'the.rotated.token'])
  first.socket.write('unchanged')
  await once(first.socket.resume(), 'data')
  for (const { socket } of [first, second]) socket.destroy()
})

test('without a usable token the worker is told, the sidecar is not asked, and the log has one line', async (t) => {
  const clock = new FakeClock()
  const rig = await startConnectRig(t, { clock })
  const bad = [
    '',
    '  \n',
    'two tokens',
    'a\r\nX-Injected: yes',
    'a'.repeat(8193),
    'ü',
    '='.repeat(3),
  ]
  for (const text of [...bad, 'a'.repeat(17_000)]) {
    rig.writeToken(text)
    const { status, body, headers } = await rig.upgrade()
    t.equal(status, 503, text.slice(0, 20))
    t.equal(errorOf(body), 'token_unavailable')
    t.match(headers['retry-after'], /^\d+$/)
  }
  t.equal(rig.requests.length, 0)
  t.equal(rig.lines.length, 1)
  t.match(rig.lines[0], {
    level: 'error',
    code: 'token_unavailable',
    msg: 'workers cannot connect',
  })
  t.notMatch(JSON.stringify(rig.lines), /Injected/)
  rig.writeToken(TOKEN)
  const { socket } = await rig.upgrade()
  clock.advance(1000)
  t.match(rig.lines[1], { level: 'info', msg: 'workers can connect again' })
  socket.destroy()
})

test('a token file that does not exist is named in the log', async (t) => {
  const rig = await startConnectRig(t, { target: { tokenFile: '/nowhere/token' } })
  const { status, body } = await rig.upgrade()
  t.equal(status, 503)
  t.equal(errorOf(body), 'token_unavailable')
  t.equal(rig.lines[0]?.['reason'], '/nowhere/token: The file does not exist.')
  t.notMatch(body, /nowhere/)
})

test('a token file is read up to its limit, however large it is', async (t) => {
  const rig = await startConnectRig(t, { target: { tokenFile: '/dev/zero' } })
  t.equal((await rig.upgrade()).status, 503)
  t.equal(rig.lines[0]?.['reason'], '/dev/zero: The file is larger than 16 KiB.')
})

test('states that change quickly are one line a second, and the last one is the one shown', async (t) => {
  const clock = new FakeClock()
  const rig = await startConnectRig(t, { clock })
  for (let n = 0; n < 5; n += 1) {
    rig.writeToken('')
    await rig.upgrade()
    rig.writeToken(TOKEN)
    ;(await rig.upgrade()).socket.destroy()
  }
  t.strictSame(
    rig.lines.map(({ msg }) => msg),
    ['workers cannot connect'],
  )
  clock.advance(1000)
  clock.advance(1000)
  t.strictSame(
    rig.lines.map(({ msg }) => msg),
    ['workers cannot connect', 'workers can connect again'],
  )
})

test('a Unix socket serves the same, for every process that can open its directory', async (t) => {
  const unixPath = join(shortDirectory(t), 'connect.sock')
  const rig = await startConnectRig(t, { unixPath })
  t.equal(rig.address, `unix:${unixPath}`)
  t.equal(statSync(unixPath).mode & 0o777, 0o666)
  const call = requestOver({
    socketPath: unixPath,
    headers: {
      Host: 'localhost',
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    },
  }).end()
  const [response, socket] = await once(call, 'upgrade')
  t.equal(response.statusCode, 101)
  socket.destroy()
})

test('the socket of an earlier life is replaced; one in use, and a file, are not', async (t) => {
  const directory = shortDirectory(t)
  const stale = join(directory, 'stale.sock')
  const server = createServer()
  await once(server.listen(stale), 'listening')
  await t.rejects(startConnectRig(t, { unixPath: stale }), { code: 'EADDRINUSE' })
  // As of a process that was killed: the name stays, and nobody answers.
  renameSync(stale, `${stale}.kept`)
  server.close()
  await once(server, 'close')
  renameSync(`${stale}.kept`, stale)
  const rig = await startConnectRig(t, { unixPath: stale })
  t.equal(rig.address, `unix:${stale}`)

  const file = join(directory, 'file')
  writeFileSync(file, 'mine')
  await t.rejects(startConnectRig(t, { unixPath: file }), { code: 'EADDRINUSE' })
  t.equal(readFileSync(file, 'utf8'), 'mine')
})

test('a stop ends the streams in order, and the listener', async (t) => {
  const rig = await startConnectRig(t, {
    onUpgrade(request, socket) {
      socket.write(`${openingTo(request)}the last bytes`)
      socket.resume().on('end', () => socket.end())
    },
  })
  const { socket } = await rig.upgrade()
  const idle = await rig.dial()
  let read = ''
  socket.on('data', (chunk) => (read += String(chunk))).resume()
  const [ended] = [once(socket, 'end'), once(idle.resume(), 'close')]
  await rig.connect.close()
  await ended
  t.equal(read, 'the last bytes')
  await t.rejects(rig.dial(), { code: 'ECONNREFUSED' })
})

const DATAGRAM = `
import socket, sys
bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
bound.bind(sys.argv[1])
print('bound', flush=True)
sys.stdin.read()
`

test('a socket of another kind that is in use is left alone', async (t) => {
  const path = join(shortDirectory(t), 'log.sock')
  const owner = spawn('python3', ['-c', DATAGRAM, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  owner.on('error', () => {})
  if (owner.pid === undefined) {
    t.comment('there is no python3')
    return
  }
  t.teardown(() => owner.kill())
  await once(owner.stdout, 'data')
  await t.rejects(startConnectRig(t, { unixPath: path }), { code: 'EADDRINUSE' })
  t.ok(statSync(path).isSocket())
})
