/** What `connect` relays: every byte in order, every end as it came, and every refusal as it was meant. */

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { createAuthority } from '../kit/authority.ts'
import { openingTo, startConnectRig, type ConnectRigOptions } from '../kit/connect-rig.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { upgradeLines } from '../kit/raw-upgrade.ts'
import { waitUntil } from '../kit/wait.ts'

const CONNECT_MS_MAX = 10_000
const ANSWER_MS_MAX = 30_000
const HALF_OPEN_MS_MAX = 30_000
const MIB = 1024 * 1024
const errorOf = (body: string) => (JSON.parse(body) as { error: { type: string } }).error.type

/** Writes `size` random bytes as fast as they are taken, and returns their digest. */
const pump = async (socket: Duplex, size: number): Promise<string> => {
  const hash = createHash('sha256')
  for (let left = size; left > 0;) {
    const chunk = randomBytes(Math.min(left, 1 + Math.floor(Math.random() * 200_000)))
    hash.update(chunk)
    left -= chunk.length
    if (!socket.write(chunk)) await once(socket, 'drain')
  }
  return hash.digest('hex')
}

/** The digest of the next `size` bytes, and of nothing beyond them. */
const digest = async (socket: Duplex, size: number): Promise<string> => {
  const hash = createHash('sha256')
  let seen = 0
  const { promise, resolve } = Promise.withResolvers<void>()
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk)
    seen += chunk.length
    if (seen >= size) resolve()
  })
  socket.resume()
  await promise
  return seen === size ? hash.digest('hex') : `${seen} bytes`
}

/** As a server that reads nothing, and ends when its peer does. */
const endWith = (socket: Duplex) => void socket.resume().once('end', () => socket.end())

/** A stream with both its ends in the test's hands. */
const openPair = async (
  t: Parameters<typeof startConnectRig>[0],
  options: ConnectRigOptions = {},
) => {
  const { promise, resolve } = Promise.withResolvers<Duplex>()
  const rig = await startConnectRig(t, {
    ...options,
    onUpgrade(request, socket) {
      socket.write(openingTo(request))
      resolve(socket)
    },
  })
  const worker = await rig.open()
  t.teardown(() => worker.destroy())
  return { rig, worker, gateway: await promise }
}

test('many MiB pass both ways at once, and every byte arrives in order', async (t) => {
  const { worker, gateway } = await openPair(t)
  const size = 48 * MIB
  const [up, down, atGateway, atWorker] = await Promise.all([
    pump(worker, size),
    pump(gateway, size),
    digest(gateway, size),
    digest(worker, size),
  ])
  t.equal(atGateway, up)
  t.equal(atWorker, down)
})

test('over TLS, too', async (t) => {
  const authority = await createAuthority()
  const files = t.testdir({ 'ca.pem': authority.cert })
  const { worker, gateway } = await openPair(t, {
    tls: await authority.issue({ commonName: 'sidecar', hosts: ['127.0.0.1'] }),
    target: { caFile: join(files, 'ca.pem') },
  })
  const size = 16 * MIB
  const [up, down, atGateway, atWorker] = await Promise.all([
    pump(worker, size),
    pump(gateway, size),
    digest(gateway, size),
    digest(worker, size),
  ])
  t.equal(atGateway, up)
  t.equal(atWorker, down)
})

test('a side that does not read stops the other: connect holds a bounded part of what it sends', async (t) => {
  for (const isUp of [true, false]) {
    const { worker, gateway } = await openPair(t)
    const [source, sink] = isUp ? [worker, gateway] : [gateway, worker]
    sink.pause()
    const chunk = randomBytes(256 * 1024)
    const hash = createHash('sha256')
    let sent = 0
    // Until nothing has been taken for many turns: sockets and kernel are full.
    for (let idle = 0; idle < 200;) {
      if (source.writableNeedDrain) {
        await new Promise((resolve) => setImmediate(resolve))
        idle += 1
        continue
      }
      idle = 0
      source.write(chunk)
      hash.update(chunk)
      sent += chunk.length
      if (sent > 256 * MIB) break
    }
    t.ok(sent < 64 * MIB, `${sent} bytes were taken`)
    t.equal(await digest(sink, sent), hash.digest('hex'))
  }
})

test('what a worker sends before the answer follows it, and what the gateway sends with its 101 precedes', async (t) => {
  for (const size of [1, 300_000]) {
    const { promise: asked, resolve: ask } = Promise.withResolvers<() => void>()
    const received: Buffer[] = []
    const rig = await startConnectRig(t, {
      onUpgrade(request, socket) {
        socket.on('data', (chunk) => received.push(chunk))
        ask(() => socket.write(`${openingTo(request)}first of the gateway`))
      },
    })
    const socket = await rig.dial()
    socket.write(`${upgradeLines().join('\r\n')}\r\n\r\nbehind the head, `)
    const answer = await asked
    const early = randomBytes(size)
    socket.write(early)
    let text = ''
    socket.on('data', (chunk) => (text += String(chunk)))
    answer()
    await waitUntil(() => text.endsWith('first of the gateway'))
    const expected = Buffer.concat([Buffer.from('behind the head, '), early])
    await waitUntil(() => Buffer.concat(received).length >= expected.length)
    t.ok(Buffer.concat(received).equals(expected))
    socket.destroy()
  }
})

test('each side may end first, and the other can still send', async (t) => {
  for (const isUp of [true, false]) {
    const { worker, gateway } = await openPair(t)
    const [first, other] = isUp ? [worker, gateway] : [gateway, worker]
    const chunks: Buffer[] = []
    first.on('data', (chunk: Buffer) => chunks.push(chunk)).resume()
    first.end('the last words')
    const [heard] = (await once(other.resume(), 'data')) as [Buffer]
    t.equal(heard.toString(), 'the last words')
    await once(other, 'end')
    other.end('the answer to them')
    await once(first, 'end')
    t.equal(Buffer.concat(chunks).toString(), 'the answer to them')
  }
})

test('a side that never ends after the other did is cut', async (t) => {
  const clock = new FakeClock()
  const { worker, gateway, rig } = await openPair(t, { clock })
  gateway.on('error', () => {})
  gateway.resume()
  worker.end()
  await once(gateway, 'end')
  await waitUntil(() => clock.pending > 0)
  clock.advance(HALF_OPEN_MS_MAX - 1)
  t.equal(rig.upstreamSockets.size, 1)
  clock.advance(1)
  await once(worker.resume(), 'close')
  t.equal(clock.pending, 0)
})

test('a side that resets ends the other', async (t) => {
  for (const isUp of [true, false]) {
    const { worker, gateway, rig } = await openPair(t)
    const [first, other] = isUp ? [worker, gateway] : [gateway, worker]
    first.on('error', () => {})
    other.on('error', () => {})
    const gone = once(other.resume(), 'end').catch(() => {})
    ;(first as Socket).resetAndDestroy()
    await gone
    other.destroy()
    await waitUntil(() => rig.upstreamSockets.size === 0)
  }
})

test('a refusal of the sidecar passes with its status, its body and its Retry-After', async (t) => {
  const body = JSON.stringify({
    error: { type: 'token_expired', message: 'The token has expired.' },
  })
  const rig = await startConnectRig(t, {
    onUpgrade: (_, socket) =>
      socket.end(
        'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nSet-Cookie: a=b\r\nRetry-After: 7\r\n' +
          `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      ),
  })
  const answer = await rig.upgrade()
  t.equal(answer.status, 401)
  t.equal(answer.body, body)
  t.equal(answer.headers['retry-after'], '7')
  t.equal(answer.headers['set-cookie'], undefined)
  t.match(rig.lines[0], { code: 'refused', status: 401, reason: body })
  await rig.upgrade()
  t.equal(rig.lines.length, 1)
})

test('a refusal whose body is long, cut or no JSON passes with its status alone', async (t) => {
  const head = 'HTTP/1.1 503 Service Unavailable\r\n'
  const answers = [
    `${head}Content-Length: 4\r\n\r\n<p/>`,
    `${head}Content-Length: 2050\r\n\r\n"${'a'.repeat(2048)}"`,
    `${head}Content-Length: 10\r\n\r\n"cut`,
    `${head}Content-Length: 0\r\nRetry-After: soon\r\n\r\n`,
  ]
  for (const answer of answers) {
    const rig = await startConnectRig(t, { onUpgrade: (_, socket) => socket.end(answer) })
    const { status, body, headers } = await rig.upgrade()
    t.equal(status, 503, answer)
    t.equal(errorOf(body), 'refused')
    t.equal(headers['retry-after'], undefined)
  }
})

test('a refusal that never ends is answered after a while', async (t) => {
  const clock = new FakeClock()
  const rig = await startConnectRig(t, {
    clock,
    onUpgrade: (_, socket) =>
      socket.write('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10\r\n\r\n"'),
  })
  const answer = rig.upgrade()
  await waitUntil(() => rig.requests.length === 1)
  const isAnswered = answer.then(({ status }) => status)
  let status: number | undefined
  void isAnswered.then((known) => (status = known))
  await waitUntil(() => {
    clock.advance(100)
    return status !== undefined
  })
  t.equal(status, 503)
})

test('an answer that is neither a perfect 101 nor a refusal is a 502', async (t) => {
  const opening = (request: Parameters<typeof openingTo>[0]) => openingTo(request)
  const answers: readonly ((request: Parameters<typeof openingTo>[0]) => string)[] = [
    (request) => opening(request).replace(/Accept: .*/, 'Accept: bm90IHRoZSBvbmU='),
    (request) => opening(request).replace('Upgrade: websocket', 'Upgrade: h2c'),
    (request) => openingTo(request, ['Sec-WebSocket-Extensions: permessage-deflate']),
    (request) => openingTo(request, ['Sec-WebSocket-Protocol: unasked']),
    () => 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}',
    () => 'HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n',
  ]
  for (const answer of answers) {
    const rig = await startConnectRig(t, {
      onUpgrade(request, socket) {
        socket.write(answer(request))
        endWith(socket)
      },
    })
    const { status, body } = await rig.upgrade()
    t.equal(status, 502)
    t.equal(errorOf(body), 'sidecar_answer_invalid')
    await waitUntil(() => rig.upstreamSockets.size === 0)
  }
})

test('a sidecar that goes before its answer is a 503, at whatever byte it goes', async (t) => {
  const partial = [
    '',
    'HTTP/1.1 1',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n',
    'xx',
  ]
  for (const bytes of partial) {
    for (const isReset of [false, true]) {
      const rig = await startConnectRig(t, {
        onUpgrade(_, socket) {
          const cut = () => (isReset ? (socket as Socket).resetAndDestroy() : socket.destroy())
          if (bytes === '') cut()
          else socket.write(bytes, cut)
        },
      })
      const { status, body } = await rig.upgrade()
      t.equal(status, 503, bytes)
      t.equal(errorOf(body), 'sidecar_unreachable')
    }
  }
})

test('a sidecar that is not there is a 503, and a worker that comes later finds it', async (t) => {
  const clock = new FakeClock()
  const rig = await startConnectRig(t, { clock })
  await rig.stopUpstream()
  for (let n = 0; n < 3; n += 1) {
    const { status, body } = await rig.upgrade()
    t.equal(status, 503)
    t.equal(errorOf(body), 'sidecar_unreachable')
  }
  t.equal(rig.lines.length, 1)
  t.match(rig.lines[0]?.['reason'], /ECONNREFUSED/)
  await once(rig.upstream.listen(rig.upstreamPort, '127.0.0.1'), 'listening')
  const { status, socket } = await rig.upgrade()
  t.equal(status, 101)
  clock.advance(1000)
  t.equal(rig.lines[1]?.msg, 'workers can connect again')
  socket.destroy()
})

test('a sidecar that does not answer in time is a 503', async (t) => {
  const clock = new FakeClock()
  const rig = await startConnectRig(t, { clock, onUpgrade: (_, socket) => endWith(socket) })
  const answer = rig.upgrade()
  await waitUntil(() => rig.requests.length === 1)
  clock.advance(ANSWER_MS_MAX)
  const { status, body } = await answer
  t.equal(status, 503)
  t.equal(errorOf(body), 'sidecar_unreachable')
  await waitUntil(() => rig.upstreamSockets.size === 0)
})

test('a TLS handshake that does not end in time is a 503', async (t) => {
  const clock = new FakeClock()
  const silent = createServer().listen(0, '127.0.0.1')
  const accepted = once(silent, 'connection') as Promise<[Socket]>
  await once(silent, 'listening')
  const { port } = silent.address() as { port: number }
  t.teardown(() => silent.close())
  const rig = await startConnectRig(t, {
    clock,
    target: { url: new URL(`wss://127.0.0.1:${port}`) },
  })
  const answer = rig.upgrade()
  const [socket] = await accepted
  await once(socket, 'data')
  clock.advance(CONNECT_MS_MAX)
  t.equal((await answer).status, 503)
  socket.destroy()
})

test('a worker that leaves during the call takes it along, and no line is logged', async (t) => {
  for (const isReset of [false, true]) {
    const rig = await startConnectRig(t, { onUpgrade: (_, socket) => endWith(socket) })
    const socket = await rig.dial()
    socket.write(`${upgradeLines().join('\r\n')}\r\n\r\n`)
    await waitUntil(() => rig.requests.length === 1)
    if (isReset) socket.resetAndDestroy()
    else socket.end()
    await waitUntil(() => rig.upstreamSockets.size === 0)
    t.strictSame(rig.lines, [])
  }
})

test('the certificate of the sidecar must come from the authority, and be for its name', async (t) => {
  const authority = await createAuthority('ours')
  const stranger = await createAuthority('strangers')
  const files = t.testdir({ 'ca.pem': authority.cert, 'other.pem': stranger.cert })
  const caFile = join(files, 'ca.pem')
  const issue = (hosts: readonly string[], of = authority) =>
    of.issue({ commonName: 'sidecar', hosts })
  const cases = [
    [101, await issue(['127.0.0.1']), { caFile }],
    [101, await issue(['sidecar.example']), { caFile, serverName: 'sidecar.example' }],
    [503, await issue(['sidecar.example']), { caFile }],
    [503, await issue(['127.0.0.1']), { caFile, serverName: 'sidecar.example' }],
    [503, await issue(['127.0.0.1'], stranger), { caFile }],
    [503, await issue(['127.0.0.1']), { caFile: join(files, 'other.pem') }],
    [503, await issue(['127.0.0.1']), {}],
    [101, await issue(['::1']), { caFile }, '::1'],
    [101, await issue(['sidecar.example']), { caFile, serverName: 'sidecar.example' }, '::1'],
    [503, await issue(['::2']), { caFile }, '::1'],
  ] as const
  for (const [expected, tls, target, host = '127.0.0.1'] of cases) {
    const rig = await startConnectRig(t, { tls, target, host })
    const { status, body, socket } = await rig.upgrade()
    t.equal(status, expected)
    if (status === 503) t.equal(errorOf(body), 'sidecar_tls_failed')
    t.equal(rig.requests.length, expected === 101 ? 1 : 0, 'no token is shown to a stranger')
    socket.destroy()
  }
})

test('certificates are read for each connection: new authority, new client certificate', async (t) => {
  const [before, after] = [await createAuthority('before'), await createAuthority('after')]
  const client = (of: typeof before) => of.issue({ commonName: 'worker', usage: 'client' })
  const server = (of: typeof before) => of.issue({ commonName: 'sidecar', hosts: ['127.0.0.1'] })
  const files = t.testdir({})
  const [caFile, certFile, keyFile] = ['ca.pem', 'tls.crt', 'tls.key'].map((name) =>
    join(files, name),
  )
  const write = async (of: typeof before) => {
    const { cert, key } = await client(of)
    writeFileSync(caFile ?? '', of.cert)
    writeFileSync(certFile ?? '', cert)
    writeFileSync(keyFile ?? '', key)
  }
  await write(before)
  const mutual = async (of: typeof before) => ({
    ...(await server(of)),
    ca: of.cert,
    requestCert: true,
    rejectUnauthorized: true,
  })
  const rig = await startConnectRig(t, {
    tls: await mutual(before),
    target: { caFile, certFile, keyFile },
  })
  const first = await rig.upgrade()
  t.equal(first.status, 101)
  ;(rig.upstream as unknown as { setSecureContext: (o: unknown) => void }).setSecureContext(
    await mutual(after),
  )
  const stale = await rig.upgrade()
  t.equal(stale.status, 503)
  t.equal(errorOf(stale.body), 'sidecar_tls_failed')
  await write(after)
  const second = await rig.upgrade()
  t.equal(second.status, 101)
  first.socket.write('unchanged')
  await once(first.socket.resume(), 'data')
  for (const { socket } of [first, second]) socket.destroy()
})

test('a client certificate of a stranger is refused by the sidecar, and said to be a TLS failure', async (t) => {
  const [ours, strangers] = [await createAuthority('ours'), await createAuthority('strangers')]
  const { cert, key } = await strangers.issue({ commonName: 'worker', usage: 'client' })
  const files = t.testdir({ 'ca.pem': ours.cert, 'tls.crt': cert, 'tls.key': key })
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const rig = await startConnectRig(t, {
      tls: {
        ...(await ours.issue({ commonName: 'sidecar', hosts: ['127.0.0.1'] })),
        ca: ours.cert,
        requestCert: true,
        rejectUnauthorized: true,
        maxVersion,
      },
      target: {
        caFile: join(files, 'ca.pem'),
        certFile: join(files, 'tls.crt'),
        keyFile: join(files, 'tls.key'),
      },
    })
    const { status, body } = await rig.upgrade()
    t.equal(status, 503, maxVersion)
    t.match(errorOf(body), /^sidecar_(tls_failed|unreachable)$/)
  }
})

test('TLS files that are missing or useless are a 503 that the log explains', async (t) => {
  const authority = await createAuthority()
  const files = t.testdir({ 'ca.pem': 'not a certificate', 'ok.pem': authority.cert, empty: '' })
  const tls = await authority.issue({ commonName: 'sidecar', hosts: ['127.0.0.1'] })
  const okFile = join(files, 'ok.pem')
  const cases = [
    [{ caFile: '/nowhere/ca.pem' }, /^\/nowhere\/ca.pem: The file does not exist\.$/],
    [{ caFile: join(files, 'ca.pem') }, /ca\.pem: This is not a PEM file\.$/],
    [{ caFile: okFile, certFile: okFile, keyFile: join(files, 'empty') }, /empty: This is not/],
    [{ caFile: okFile, certFile: okFile, keyFile: okFile }, /./],
  ] as const
  for (const [target, reason] of cases) {
    const rig = await startConnectRig(t, { tls, target })
    const { status, body } = await rig.upgrade()
    t.equal(status, 503)
    t.equal(errorOf(body), 'certificates_unavailable')
    t.match(rig.lines[0]?.['reason'], reason)
    t.equal(rig.upstreamSockets.size, 0)
  }
})
