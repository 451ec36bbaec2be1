/** The fake clock and the workers of the tests report exactly what happened. */

import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import t from 'tap'
import type { Test } from 'tap'
import { WebSocketServer } from 'ws'
import { FakeClock } from '../kit/fake-clock.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import {
  closed,
  connectInBand,
  connectWorker,
  nextMessage,
  openWorker,
} from '../kit/worker-client.ts'

t.test('the fake clock runs what is due, in order, and nothing else', async (test) => {
  const clock = new FakeClock(1000)
  const ran: string[] = []
  clock.after(20, () => ran.push(`b at ${clock.monotonic()}`))
  clock.after(10, () => {
    ran.push(`a at ${clock.monotonic()}`)
    clock.after(5, () => ran.push(`nested at ${clock.monotonic()}`))
  })
  clock.after(15, () => ran.push('same time, later armed'))
  const cancel = clock.after(12, () => ran.push('never'))
  clock.after(21, () => ran.push('late'))
  cancel()
  clock.advance(20)
  test.strictSame(ran, ['a at 10', 'same time, later armed', 'nested at 15', 'b at 20'])
  test.equal(clock.now(), 1020)
  test.equal(clock.pending, 1)
  clock.stepWall(-500)
  test.strictSame([clock.now(), clock.monotonic(), ran.length], [520, 20, 4])

  const chained = new FakeClock(0)
  const rearm = async (): Promise<void> => {
    await new Promise<void>((resolve) => chained.after(10, resolve))
    ran.push(`promised at ${chained.monotonic()}`)
    if (chained.monotonic() < 30) await rearm()
  }
  const done = rearm()
  await chained.advanceAsync(30)
  await done
  test.strictSame(ran.slice(4), ['promised at 10', 'promised at 20', 'promised at 30'])

  const endless = new FakeClock(0)
  const spin = (): void => void endless.after(0, spin)
  spin()
  test.throws(() => endless.advance(1), /fell due at once/)
})

const echoServer = async (test: Test) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  test.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return { server, port, url: `ws://127.0.0.1:${port}` }
}

t.test('a worker shows its token in the given carrier, from the given address', async (test) => {
  const { server, url } = await echoServer(test)
  const seen = async (options: Parameters<typeof connectWorker>[0]) => {
    const arrived = once(server, 'connection') as Promise<[unknown, IncomingMessage]>
    const outcome = await connectWorker(options)
    const [, { headers, socket }] = await arrived
    if (outcome.ok) outcome.socket.terminate()
    return { headers, from: socket.remoteAddress, outcome }
  }
  const token = 'a.b.c'
  test.match((await seen({ url, token })).headers, { authorization: 'Bearer a.b.c' })
  test.match((await seen({ url, token, carrier: 'header' })).headers, {
    'x-openclaw-sa-token': token,
  })
  test.match((await seen({ url, token, carrier: 'cf' })).headers, {
    'cf-access-client-secret': token,
  })
  const bare = await seen({ url, token, carrier: 'none', localAddress: '127.0.0.9' })
  test.notOk(bare.headers.authorization)
  test.equal(bare.from, '127.0.0.9')
  server.options.handleProtocols = () => 'v1'
  const two = await seen({ url, token, carrier: 'subprotocol', protocols: ['v1'] })
  test.equal(
    two.headers['sec-websocket-protocol'],
    'base64url.bearer.authorization.k8s.io.YS5iLmM,v1',
  )
  test.match(two.outcome, { ok: true, protocol: 'v1' })
  server.options.handleProtocols = () => false
  const alone = await seen({ url, token, carrier: 'subprotocol' })
  test.match(alone.outcome, { ok: true, protocol: '' })
})

t.test(
  'a refused worker sees status, headers and body; a missing answer is an error',
  async (test) => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', (data) => {
        if (data.includes('/silent')) socket.destroy()
        else socket.end('HTTP/1.1 401 No\r\nX-Code: c\r\nContent-Length: 11\r\n\r\n{"error":1}')
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    test.teardown(() => server.close())
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
    test.match(await connectWorker({ url }), { ok: false, status: 401, body: { error: 1 } })
    test.match(await connectInBand({ url, frame: {} }), { kind: 'refused', status: 401 })
    await test.rejects(openWorker({ url }), /refused with 401/)
    await test.rejects(connectWorker({ url: `${url}/silent` }), /hang up|ECONNRESET/)
  },
)

t.test(
  'no message is lost between the open and the first wait, nor before a close',
  async (test) => {
    const { server, url } = await echoServer(test)
    server.on('connection', (socket) => {
      socket.send('first')
      socket.send(Buffer.from([1, 2]))
      socket.close(4001, 'enough')
    })
    const socket = await openWorker({ url })
    test.strictSame(await closed(socket), { code: 4001, reason: 'enough' })
    test.match(await nextMessage(socket), { text: 'first', binary: false })
    test.match(await nextMessage(socket), { data: Buffer.from([1, 2]), binary: true })
    await test.rejects(nextMessage(socket), /closed with 4001 enough/)
  },
)

t.test(
  'an in-band worker reports the first message or the close that answers its frame',
  async (test) => {
    const { server, url } = await echoServer(test)
    server.on('connection', (socket) => {
      socket.once('message', (data: Buffer) => {
        if (data.toString() === '{"a":1}') socket.send('welcome')
        else socket.close(1008, 'no')
      })
    })
    const welcome = await connectInBand({ url, frame: { a: 1 } })
    test.match(welcome, { kind: 'message', message: { text: 'welcome' } })
    if (welcome.kind === 'message') welcome.socket.terminate()
    test.strictSame(await connectInBand({ url, frame: 'else' }), {
      kind: 'closed',
      code: 1008,
      reason: 'no',
    })
  },
)

t.test('a raw upgrade reads a whole refusal, stops at a 101 and reports a reset', async (test) => {
  const replies: Record<string, (socket: Socket) => void> = {
    '/refuse': (socket) => socket.end('HTTP/1.1 400 Bad\r\nX-A: 1\r\nx-a: 2\r\n\r\nbody'),
    '/length': (socket) =>
      socket.write('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\no', () =>
        setImmediate(() => setImmediate(() => socket.write('k'))),
      ),
    '/switch': (socket) => socket.write('HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\nframe'),
    '/reset': (socket) => socket.resetAndDestroy(),
    '/end': (socket) => socket.end(),
  }
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (data) => replies[data.toString().split(' ')[1] ?? '']?.(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  test.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const ask = async (path: string) => rawUpgrade({ port, lines: upgradeLines(path) })
  test.match(await ask('/refuse'), { status: 400, headers: { 'x-a': '1, 2' }, body: 'body' })
  const kept = await ask('/length')
  test.match(kept, { status: 403, body: 'ok' })
  kept.socket.destroy()
  const switched = await ask('/switch')
  test.match(switched, { status: 101, body: '' })
  const [frame] = (await once(switched.socket.resume(), 'data')) as [Buffer]
  test.equal(frame.toString(), 'frame')
  switched.socket.destroy()
  test.match(await ask('/reset'), { status: 0, isReset: true })
  test.match(await ask('/end'), { status: 0, isReset: false })
  await test.rejects(rawUpgrade({ port, bytes: 'GET /mute H\r\n', timeoutMs: 20 }), /within 20 ms/)
})
