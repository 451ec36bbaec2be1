/** The admin port has limits: a client costs little, and keeps out neither probes nor workers. */

import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { test, type Test } from 'tap'
import type { AdminPortOptions } from '@openclaw-k8s/auth-sidecar/edge/admin-port.ts'
import { PROOF_HEADER } from '@openclaw-k8s/auth-sidecar/edge/drain-proof.ts'
import { onServerError } from '@openclaw-k8s/auth-sidecar/edge/fastify.ts'
import { stopParserAfter } from '@openclaw-k8s/auth-sidecar/edge/one-at-a-time.ts'
import { shareAnswer } from '@openclaw-k8s/auth-sidecar/edge/shared-answer.ts'
import { readOpenFilesMax } from '@openclaw-k8s/auth-sidecar/lib/open-files.ts'
import { dialFrom, readAll, startAdminRig } from '../kit/admin-rig.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { rawUpgrade } from '../kit/raw-upgrade.ts'
import { startRig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'

/** More than the kernel takes for a peer that reads nothing. */
const UNREADABLE = 'x'.repeat(16 * 1024 * 1024)

/** Long enough for a good request, even on a busy machine. */
const SHORT_MS = 1000

const startPort = async (t: Test, given: Partial<AdminPortOptions> = {}) => {
  const rig = await startAdminRig(given)
  t.teardown(() => rig.close())
  return rig
}

const dial = async (t: Test, port: number, localAddress?: string): Promise<Socket> => {
  const socket = await dialFrom(port, localAddress)
  t.teardown(() => socket.destroy())
  return socket
}

const get = (path: string, ...fields: string[]): string =>
  [`GET ${path} HTTP/1.1`, 'Host: x', ...fields, '', ''].join('\r\n')

const DRAIN = `POST /drain HTTP/1.1\r\nHost: x\r\n${PROOF_HEADER}: x\r\nConnection: close\r\n\r\n`

const livez = async (url: string): Promise<number> => (await fetch(`${url}/livez`)).status

test('idle connections make room for new ones, per address and in total', async (t) => {
  const { port, url } = await startPort(t)
  const closed = { few: 0, many: 0 }
  const open = async (kind: keyof typeof closed, localAddress: string) => {
    const socket = await dial(t, port, localAddress)
    socket.resume().on('close', () => (closed[kind] += 1))
  }
  for (let n = 0; n < 30; n += 1) await open('few', '127.0.0.9')
  await waitUntil(() => closed.few === 22)
  t.equal(await livez(url), 200, 'another address is served')
  for (let n = 0; n < 100; n += 1) await open('many', `127.0.1.${1 + (n % 20)}`)
  // The probe's own connection is one of the 64.
  await waitUntil(() => closed.few + closed.many >= 130 - 64)
  t.equal(await livez(url), 200)
  t.equal(closed.few, 30, 'the oldest went first')
})

test('a connection that waits for its answer is not closed to make room', async (t) => {
  const { port, drained } = await startPort(t)
  const draining = await dial(t, port)
  const answer = readAll(draining)
  draining.write(DRAIN)
  const next = readAll(await dial(t, port))
  for (let n = 0; n < 20; n += 1) await dial(t, port)
  await next
  t.notOk(draining.closed, 'the younger one went')
  drained.resolve({ streams: 3 })
  t.match(await answer, /\{"streams":3\}$/)
})

test('a drain is answered when it is complete, however long that takes', async (t) => {
  const { clock, port, drained } = await startPort(t, { requestTimeoutMs: SHORT_MS })
  const draining = await dial(t, port)
  const answer = readAll(draining)
  draining.write(DRAIN)
  const silent = await dial(t, port)
  silent.write('GET /livez HTTP/1.1\r\n')
  t.match(await readAll(silent), /^HTTP\/1.1 408/, 'a request has less time than has passed')
  clock.advance(60_000)
  drained.resolve({ streams: 3 })
  t.match(await answer, /\{"streams":3\}$/)
})

/** With a content type; otherwise the body would be refused before it is waited for. */
const POST = 'POST /drain HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'

const NEVER_WHOLE = {
  'a head': 'GET /metrics HTTP/1.1\r\nHost: x\r\n',
  'the body of a POST': `${POST}Content-Length: 10\r\n\r\n{`,
  'the body of a GET': 'GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n',
  'a chunked body': `${POST}Transfer-Encoding: chunked\r\n\r\n5\r\nab`,
  'a first byte': '',
}

test('a connection whose peer never sends the rest of a request is closed', async (t) => {
  const { port, url } = await startPort(t, { requestTimeoutMs: SHORT_MS })
  const closing = Object.entries(NEVER_WHOLE).map(async ([name, bytes]) => {
    const socket = await dial(t, port)
    socket.write(bytes)
    await readAll(socket)
    t.pass(name)
  })
  await Promise.all(closing)
  t.equal(await livez(url), 200)
})

test('pipelined requests are started one by one, as their peer takes the answers', async (t) => {
  let renders = 0
  const { port } = await startPort(t, {
    renderMetrics: async () => {
      renders += 1
      return { contentType: 'text/plain', body: `${UNREADABLE}${renders}\n` }
    },
  })
  const socket = await dial(t, port)
  socket.write(get('/metrics') + get('/metrics', 'Connection: close'))
  await waitUntil(() => renders === 1)
  for (let n = 0; n < 100; n += 1) await turn()
  t.equal(renders, 1, 'nobody reads the first answer')
  const text = await readAll(socket)
  t.same(text.match(/x\d/g), ['x1', 'x2'], 'both are answered, in order')
})

test('a connection with too many waiting requests is closed', async (t) => {
  let renders = 0
  const { port, url } = await startPort(t, {
    renderMetrics: async () => {
      renders += 1
      return { contentType: 'text/plain', body: UNREADABLE }
    },
  })
  for (const request of [
    get('/metrics'),
    get('/metrics', 'Expect: 100-continue'),
    get('/metrics', 'Expect: the-unexpected'),
    get('/metrics', 'Upgrade: websocket', 'Connection: Upgrade, close'),
  ]) {
    const before = renders
    const socket = await dial(t, port)
    socket.write(request.repeat(1000))
    await readAll(socket)
    t.ok(renders - before <= 1, request)
    // Few enough for the parser not to stop, but the ninth is still one too many.
    const few = await dial(t, port)
    few.write(request.repeat(12))
    await readAll(few)
    t.ok(renders - before <= 2, request)
  }
  t.equal(await livez(url), 200)
})

test('only as many requests of one chunk are parsed as can be answered', async (t) => {
  let parsed = 0
  const server = createHttpServer((_request, response) => {
    parsed += 1
    response.end()
  })
  server.on('connection', (socket: Socket) => stopParserAfter(socket, 16))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const few = await dial(t, port)
  few.write(get('/').repeat(14) + get('/', 'Connection: close'))
  await readAll(few)
  t.equal(parsed, 15)
  const many = await dial(t, port)
  many.write(get('/').repeat(1000))
  await readAll(many)
  t.equal(parsed, 15 + 16)
})

test('an answer that its peer does not take is given up', async (t) => {
  let renders = 0
  const { clock, port } = await startPort(t, {
    renderMetrics: async () => {
      renders += 1
      return { contentType: 'text/plain', body: UNREADABLE }
    },
  })
  const socket = await dial(t, port)
  socket.write(get('/metrics'))
  await waitUntil(() => renders === 1 && clock.pending === 1)
  clock.advance(5000)
  t.ok((await readAll(socket)).length < UNREADABLE.length)
  t.equal(clock.pending, 0)
  t.equal((await fetch(`http://127.0.0.1:${port}/livez`)).status, 200)
  await waitUntil(() => clock.pending === 0)
})

test('a connection serves a hundred requests and is closed', async (t) => {
  const { port } = await startPort(t)
  const socket = await dial(t, port)
  let text = ''
  socket.on('data', (chunk: Buffer) => void (text += chunk.toString('latin1')))
  const answers = (): number => text.match(/^HTTP\/1.1 200/gm)?.length ?? 0
  for (let n = 1; n <= 100; n += 1) {
    t.notOk(/Connection: close/i.test(text))
    socket.write(get('/livez'))
    await waitUntil(() => answers() === n)
  }
  t.match(text, /Connection: close/i)
  await readAll(socket)
})

test('anything but a probe or a scrape is refused, and nothing is left open', async (t) => {
  const { port, url } = await startPort(t, { requestTimeoutMs: SHORT_MS })
  const answers = {
    'HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n': 404,
    [get('/livez', 'Expect: the-unexpected', 'Connection: close')]: 200,
    'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n': 0,
    'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n': 404,
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n': 400,
    [get('/livez', `X: ${'x'.repeat(9000)}`)]: 431,
    [get(`/${'x'.repeat(9000)}`)]: 431,
    [get('/', 'Upgrade: websocket', 'Connection: Upgrade, close')]: 404,
    [`POST /drain HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 9999999\r\n\r\n`]: 413,
  }
  for (const [bytes, status] of Object.entries(answers)) {
    const answer = await rawUpgrade({ port, bytes })
    t.equal(answer.status, status, bytes.slice(0, 40))
    await readAll(answer.socket.resume())
  }
  const reset = await dial(t, port)
  reset.write(get('/metrics'))
  reset.resetAndDestroy()
  t.equal(await livez(url), 200)
})

test('an answer is shared while it is made, and the last one is reused beyond the rate', async (t) => {
  const clock = new FakeClock()
  let made = 0
  const ask = shareAnswer(
    async () => {
      made += 1
      const answer = made
      await turn()
      return answer
    },
    { clock, ratePerSecond: 10, burst: 2 },
  )
  t.same(await Promise.all([ask(), ask(), ask()]), [1, 1, 1])
  t.same([await ask(), await ask()], [2, 3], 'each is made for who asks')
  t.same(await Promise.all([ask(), ask()]), [3, 3], 'until the rate is spent')
  clock.advance(100)
  t.same([await ask(), await ask()], [4, 4])
})

test('many readiness requests dial the gateway a bounded number of times', async (t) => {
  let dials = 0
  const gateway = createServer((socket) => {
    dials += 1
    socket.on('error', () => {}).destroy()
  })
  gateway.listen(0, '127.0.0.1')
  await once(gateway, 'listening')
  const clock = new FakeClock()
  const { port: gatewayPort } = gateway.address() as AddressInfo
  const rig = await startRig({ clock, set: [`gateway.url=ws://127.0.0.1:${gatewayPort}`] })
  t.teardown(async () => {
    await rig.stop()
    gateway.close()
  })
  for (let n = 0; n < 120; n += 1) await fetch(`${rig.adminUrl}/readyz`)
  t.ok(dials <= 101, `${dials} dials`)
  const before = dials
  clock.advance(100)
  for (let n = 0; n < 10; n += 1) await fetch(`${rig.adminUrl}/readyz`)
  t.equal(dials, before + 1)
})

test('a connection that cannot be accepted is logged and ends nothing', async (t) => {
  const server = createServer()
  const errors: Error[] = []
  onServerError(server, (error) => errors.push(error))
  server.emit('error', new Error('a port that is taken'))
  t.same(errors, [], 'what `listen` rejects with is not among them')
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  server.emit('error', Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' }))
  t.equal(errors.length, 1)
  server.close()
})

test('the limit on open files is read from the system', async (t) => {
  const limits =
    'Limit  Soft Limit  Hard Limit  Units\nMax open files            128    4096    files\n'
  t.equal(
    readOpenFilesMax(() => limits),
    128,
  )
  t.equal(
    readOpenFilesMax(() => limits.replace('128', 'unlimited')),
    Infinity,
  )
  const absent = () => {
    throw new Error('ENOENT')
  }
  t.equal(readOpenFilesMax(absent), Infinity)
})
