/** Session hosting through `connect`: streamed both ways, with the gateway's credential and the pod's token. */

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { request as callHttp, type IncomingMessage, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'tap'
import { fieldsOf, startConnectRig, TOKEN, type ConnectRig } from '../kit/connect-rig.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { rawUpgrade } from '../kit/raw-upgrade.ts'
import { waitUntil } from '../kit/wait.ts'

const EXCHANGE_MS_MAX = 10 * 60_000
const MIB = 1024 * 1024
const HASH = '0123456789abcdef'.repeat(4)
const TRANSFER = '/__openclaw__/worker-transfer/v1/environments/worker%3A5f2c'
const BUNDLE = `/__openclaw__/worker-bundle/v1/bundles/${HASH}`
const MANIFEST = `${TRANSFER}/snapshots/${HASH}/manifest`
const UPLOAD = `${TRANSFER}/reconciliations/${HASH}`
const AUTHORIZATION = 'Bearer the-gateways-own'
const errorOf = (body: string) => (JSON.parse(body) as { error: { type: string } }).error.type

const hash = () => createHash('sha256')

type Call = {
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer
}

/** One call as a node host makes it, with the whole answer. */
const call = async ({ port }: ConnectRig, { path, headers, body }: Call) => {
  const upload = callHttp({
    port,
    host: '127.0.0.1',
    path,
    method: body === undefined ? 'GET' : 'POST',
    agent: false,
    headers: {
      Authorization: AUTHORIZATION,
      ...(body === undefined ? {} : { 'Content-Length': String(body.length) }),
      ...headers,
    },
  })
  const answered = once(upload, 'response') as Promise<[IncomingMessage]>
  if (body === undefined) upload.end()
  else await pipeline(Readable.from(slicesOf(body)), upload)
  const [answer] = await answered
  const chunks: Buffer[] = []
  for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk)
  return { status: answer.statusCode, headers: answer.headers, body: Buffer.concat(chunks) }
}

function* slicesOf(body: Buffer) {
  for (let at = 0; at < body.length; at += 100_000) yield body.subarray(at, at + 100_000)
}

test('a request is built: the credential passes, the token is added, nothing else goes on', async (t) => {
  const rig = await startConnectRig(t, { sessionHosting: true })
  await call(rig, {
    path: MANIFEST,
    headers: {
      'Accept-Encoding': 'gzip',
      Cookie: 'stolen',
      'X-Forwarded-For': '10.0.0.1',
      'X-OpenClaw-SA-Token': 'stolen',
      'X-OpenClaw-Scopes': 'operator.admin',
      'User-Agent': 'a node host',
      Range: 'bytes=0-1',
    },
  })
  const [request] = rig.requests
  t.equal(request?.method, 'GET')
  t.equal(request?.url, MANIFEST)
  t.strictSame(fieldsOf(request), [
    `Host: 127.0.0.1:${rig.upstreamPort}`,
    'Connection: close',
    `Authorization: ${AUTHORIZATION}`,
    'Accept-Encoding: gzip',
    `X-OpenClaw-SA-Token: ${TOKEN}`,
  ])
})

test('an answer passes with its status, its length and the listed headers only', async (t) => {
  const passed = {
    'content-type': 'application/json',
    'content-encoding': 'gzip',
    vary: 'Accept-Encoding',
    'cache-control': 'no-store',
    'retry-after': '300',
    'x-openclaw-content-sha256': HASH,
    'content-length': '2',
  }
  const rig = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (_, response) => {
      response.writeHead(429, {
        ...passed,
        'Set-Cookie': 'a=b',
        'Access-Control-Allow-Origin': '*',
        'X-Other': 'c',
      })
      response.end('{}')
    },
  })
  const { status, headers, body } = await call(rig, { path: MANIFEST })
  t.equal(status, 429)
  t.equal(String(body), '{}')
  const { connection, date: _, ...rest } = headers
  t.equal(connection, 'close')
  t.strictSame(rest, passed)
})

test('tens of MiB pass in each direction, byte by byte', async (t) => {
  const sent = randomBytes(30 * MIB)
  const received = hash()
  const rig = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (request, response) => {
      if (request.method === 'GET') {
        response.writeHead(200, { 'Content-Length': String(sent.length) })
        response.end(sent)
        return
      }
      request.on('data', (chunk: Buffer) => received.update(chunk))
      request.on('end', () => response.writeHead(200, { 'Content-Length': '2' }).end('{}'))
    },
  })
  const { body } = await call(rig, { path: BUNDLE })
  t.ok(body.equals(sent))
  const upload = await call(rig, { path: UPLOAD, body: sent, headers: { 'Content-Type': 'a/b' } })
  t.equal(upload.status, 200)
  t.equal(received.digest('hex'), hash().update(sent).digest('hex'))
  t.equal(rig.requests[1]?.headers['content-length'], String(sent.length))
  t.equal(rig.requests[1]?.headers['content-type'], 'a/b')
})

test('an empty body and an empty answer pass', async (t) => {
  const rig = await startConnectRig(t, { sessionHosting: true })
  const { status, body } = await call(rig, { path: UPLOAD, body: Buffer.alloc(0) })
  t.equal(status, 404)
  t.equal(body.length, 0)
  t.equal(rig.requests[0]?.headers['content-length'], '0')
})

test('an answer that has no body by its status passes without a length', async (t) => {
  const rig = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (request, response) => {
      request.resume().once('end', () => response.writeHead(204).end())
    },
  })
  const { status, headers } = await call(rig, { path: UPLOAD, body: Buffer.from('a') })
  t.equal(status, 204)
  t.equal(headers['content-length'], undefined)
})

test('a worker that does not read its answer holds back the sidecar', async (t) => {
  let written = 0
  const rig = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (_, response) => {
      response.writeHead(200, { 'Content-Length': String(512 * MIB) })
      const chunk = Buffer.alloc(MIB)
      const fill = () => {
        while (!response.destroyed && response.write(chunk)) written += chunk.length
      }
      response.on('drain', fill).on('error', () => {})
      fill()
    },
  })
  const socket = await rig.dial()
  socket.pause()
  socket.write(
    `GET ${BUNDLE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${AUTHORIZATION}\r\n\r\n`,
  )
  let seen = -1
  // Until nothing has been taken for many turns.
  for (let idle = 0; idle < 500; idle = seen === written ? idle + 1 : 0) {
    seen = written
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.ok(written < 64 * MIB, `${written} bytes were taken`)
  socket.destroy()
  await waitUntil(() => rig.upstreamSockets.size === 0)
})

test('an answer that cannot be passed on is a 502', async (t) => {
  const answers: readonly ((response: ServerResponse) => void)[] = [
    (response) => response.writeHead(302, { Location: '/', 'Content-Length': '0' }).end(),
    (response) => response.writeHead(304).end(),
    (response) => response.writeHead(200).end('chunked'),
    (response) => response.writeHead(200, { 'Content-Length': String(5 * 1024 ** 3) }).write('a'),
    ({ socket }) => socket?.end('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end'),
    ({ socket }) =>
      socket?.end('HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'),
  ]
  for (const answer of answers) {
    const rig = await startConnectRig(t, {
      sessionHosting: true,
      onRequest: (_, response) => answer(response),
    })
    const { status, body } = await call(rig, { path: BUNDLE })
    t.equal(status, 502, answer.toString())
    t.equal(errorOf(String(body)), 'sidecar_answer_invalid')
  }
})

test('an answer that is cut is cut for the worker too, and never looks whole', async (t) => {
  const rig = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (_, response) => {
      response.writeHead(200, { 'Content-Length': '1000' })
      response.write('half', () => response.destroy())
    },
  })
  await t.rejects(call(rig, { path: BUNDLE }), { code: 'ECONNRESET' })
})

test('a POST is read to its end before it is refused, also when the sidecar refuses early or goes', async (t) => {
  const body = randomBytes(8 * MIB)
  const early = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (request) => {
      request.socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}')
      request.resume()
    },
  })
  t.equal((await call(early, { path: UPLOAD, body })).status, 403)
  const gone = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (request) => request.socket.destroy(),
  })
  const { status, body: text } = await call(gone, { path: UPLOAD, body })
  t.equal(status, 503)
  t.equal(errorOf(String(text)), 'sidecar_unreachable')
  const tokenless = await startConnectRig(t, { sessionHosting: true })
  tokenless.writeToken('')
  const refused = await call(tokenless, { path: UPLOAD, body })
  t.equal(refused.status, 503)
  t.equal(errorOf(String(refused.body)), 'token_unavailable')
  t.equal(tokenless.requests.length, 0)
})

test('a worker that leaves in the middle of its body takes the call along', async (t) => {
  const rig = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (request) => void request.resume().on('error', () => {}),
  })
  const socket = await rig.dial()
  socket.write(
    `POST ${UPLOAD} HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${AUTHORIZATION}\r\nContent-Length: 1000\r\n\r\nhalf`,
  )
  await waitUntil(() => rig.requests.length === 1)
  socket.resetAndDestroy()
  await waitUntil(() => rig.upstreamSockets.size === 0)
  t.strictSame(rig.lines, [])
})

test('an exchange has ten minutes in all', async (t) => {
  const clock = new FakeClock()
  const rig = await startConnectRig(t, {
    clock,
    sessionHosting: true,
    onRequest: (_, response) => response.writeHead(200, { 'Content-Length': '10' }).write('half'),
  })
  const socket = await rig.dial()
  socket.write(
    `GET ${BUNDLE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${AUTHORIZATION}\r\n\r\n`,
  )
  await once(socket, 'data')
  clock.advance(EXCHANGE_MS_MAX - 1)
  t.notOk(socket.destroyed)
  clock.advance(1)
  await once(socket.resume(), 'close')
  await waitUntil(() => rig.upstreamSockets.size === 0)
  t.equal(clock.pending, 0)
})

test('of requests that come at once only the first goes on, and none behind a body', async (t) => {
  const rig = await startConnectRig(t, {
    sessionHosting: true,
    onRequest: (request, response) => {
      request.resume().on('end', () => response.writeHead(200, { 'Content-Length': '0' }).end())
    },
  })
  const head = `Host: localhost\r\nAuthorization: ${AUTHORIZATION}\r\n`
  const get = `GET ${BUNDLE} HTTP/1.1\r\n${head}\r\n`
  const post = `POST ${UPLOAD} HTTP/1.1\r\n${head}Content-Length: 1\r\n\r\na`
  for (const [n, bytes] of [get.repeat(3), post + get].entries()) {
    const { socket } = await rawUpgrade({ port: rig.port, bytes })
    if (!socket.closed) await once(socket.resume(), 'close')
    t.ok(rig.requests.length <= n + 1, bytes.slice(0, 4))
  }
})

test("the worker's WebSocket goes to its own path, with the token and no other credential", async (t) => {
  const rig = await startConnectRig(t, { sessionHosting: true })
  const { status, socket } = await rig.upgrade([], '/__openclaw__/worker')
  t.equal(status, 101)
  t.equal(rig.requests[0]?.url, '/__openclaw__/worker')
  t.equal(rig.requests[0]?.headers['x-openclaw-sa-token'], TOKEN)
  t.equal(rig.requests[0]?.headers['authorization'], undefined)
  socket.destroy()
})

test('with session hosting off its routes are not there', async (t) => {
  const rig = await startConnectRig(t)
  for (const each of [{ path: BUNDLE }, { path: UPLOAD, body: Buffer.from('a') }]) {
    const { status, body } = await call(rig, each)
    t.equal(status, 404)
    t.equal(errorOf(String(body)), 'path_not_served')
  }
  t.equal((await rig.upgrade([], '/__openclaw__/worker')).status, 404)
  t.equal(rig.requests.length, 0)
})

test('a request without the credential of the gateway goes nowhere', async (t) => {
  const rig = await startConnectRig(t, { sessionHosting: true })
  const lines = [`GET ${BUNDLE} HTTP/1.1`, 'Host: 127.0.0.1']
  const { status, body } = await rawUpgrade({ port: rig.port, lines })
  t.equal(status, 401)
  t.equal(errorOf(body), 'authorization_missing')
  t.equal(rig.requests.length, 0)
})
