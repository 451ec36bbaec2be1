/** The gateway stub is reliable: it echoes, records what happened, and leaves when it is told to. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import type { GatewayStub } from '@openclaw-k8s/gateway-stub'
import { describeHandshake } from '@openclaw-k8s/gateway-stub/handshake.ts'
import { Journal } from '@openclaw-k8s/gateway-stub/journal.ts'
import tap from 'tap'
import { WebSocket } from 'ws'
import {
  open,
  openRaw,
  start,
  upgrade,
  upgradeHeaders,
  openReadyNode,
} from '../kit/stub-clients.ts'

tap.test('an echo is byte-exact and stays text or binary', async (t) => {
  const stub = await start(t)
  const client = open(stub)
  await client.opened
  const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, n) => (n * 7) % 256))
  client.ws.send('\uFEFFgrüße')
  client.ws.send(bytes)
  client.ws.send('')
  const text = await client.nextMessage()
  t.same(text, { data: Buffer.from('\uFEFFgrüße'), isBinary: false })
  const binary = await client.nextMessage()
  t.ok(binary.isBinary)
  t.ok(binary.data.equals(bytes))
  t.same(await client.nextMessage(), { data: Buffer.alloc(0), isBinary: false })
  t.equal(stub.receivedTotal(), 3)
  t.ok(stub.received[1]?.data.equals(bytes))
})

tap.test(
  'the text headers is answered with the headers, the bytes headers are echoed',
  async (t) => {
    const stub = await start(t)
    const client = open(stub, { headers: { 'x-forwarded-for': '10.0.0.5' } })
    await client.opened
    client.ws.send('headers')
    client.ws.send(Buffer.from('headers'))
    t.match(await client.nextFrame(), { 'x-forwarded-for': '10.0.0.5', upgrade: 'websocket' })
    t.equal((await client.nextMessage()).data.toString(), 'headers')
  },
)

tap.test('a handshake is recorded as it came, repeated headers included', async (t) => {
  const stub = await start(t, { clock: { now: () => 1234, after: () => () => {} } })
  await upgrade(stub, { ...upgradeHeaders, 'X-Twice': ['a', 'b'] })
  const handshake = await stub.waitForHandshake(1)
  t.equal(handshake.path, '/a/path?q=1')
  t.equal(handshake.peerAddress, '127.0.0.1')
  t.ok(handshake.peerPort > 0)
  t.equal(handshake.at, 1234)
  t.equal(handshake.rawHeaders.filter((name) => name === 'X-Twice').length, 2)
  t.equal(handshake.headers['x-twice'], 'a, b')
  t.equal(stub.handshakes[0], handshake)
  t.equal((await stub.waitForConnection(1)).handshake, handshake)
})

tap.test('an accepted connection has neither compression nor a subprotocol', async (t) => {
  const stub = await start(t)
  // A client of ws gives up when none of its subprotocols is picked, so the answer is read by hand.
  const headers = { ...upgradeHeaders, 'Sec-WebSocket-Protocol': 'one, two' }
  const answer = await upgrade(stub, headers)
  t.equal(answer.statusCode, 101)
  t.equal(answer.headers['sec-websocket-extensions'], undefined)
  t.equal(answer.headers['sec-websocket-protocol'], undefined)
})

tap.test('live connections are counted and steered by their handles', async (t) => {
  const stub = await start(t)
  const clients = []
  for (let n = 0; n < 3; n += 1) {
    const client = open(stub)
    await client.opened
    clients.push(client)
  }
  const [first, second, third] = clients
  if (first === undefined || second === undefined || third === undefined) return
  const connections = await Promise.all([1, 2, 3].map((n) => stub.waitForConnection(n)))
  t.equal(stub.connections.size, 3)
  connections[0]?.send('to the first')
  connections[0]?.close(4001, 'removed')
  t.equal((await first.nextMessage()).data.toString(), 'to the first')
  t.same(await first.closed, { code: 4001, reason: 'removed' })
  t.same(await connections[0]?.closed, { code: 4001, reason: 'removed' })
  connections[1]?.terminate()
  t.equal((await second.closed).code, 1006)
  // A masked frame of a server breaks RFC 6455 §5.1.
  connections[2]?.writeBytes(Buffer.of(0x81, 0x81, 1, 2, 3, 4, 5))
  t.match(await third.failed, { message: /MASK/ })
  await Promise.all(connections.map((connection) => connection.closed))
  t.equal(stub.connections.size, 0)
})

tap.test('a message of exactly the limit passes, one byte more closes 1009', async (t) => {
  const stub = await start(t, { messageBytesMax: 1000 })
  const client = open(stub)
  await client.opened
  client.ws.send(Buffer.alloc(1000))
  t.equal((await client.nextMessage()).data.length, 1000)
  client.ws.send(Buffer.alloc(1001))
  t.equal((await client.closed).code, 1009)
  // What is still in flight must be read to its end, or a reset overtakes the close frame.
  const bulky = open(stub)
  await bulky.opened
  const taken = new Promise((resolve) => bulky.ws.send(Buffer.alloc(20_000_000), resolve))
  t.notOk(await taken)
  t.equal((await bulky.closed).code, 1009)
})

tap.test('the health paths answer plain HTTP', async (t) => {
  const stub = await start(t)
  const response = await fetch(`http://127.0.0.1:${stub.port}/readyz`)
  t.equal(response.status, 200)
  t.same(await response.json(), { ok: true })
  t.equal((await fetch(`http://127.0.0.1:${stub.port}/other`)).status, 404)
})

tap.test('a closed stub closes its connections 1012, ends all waits and its port', async (t) => {
  const stub = await startGatewayStub()
  const client = open(stub)
  await client.opened
  stub.setBehavior('stall')
  await openRaw(stub)
  const wait = stub.waitForHandshake()
  await stub.close()
  await t.rejects(wait, { message: /closed/ })
  await t.rejects(stub.waitForMessage(), { message: /closed/ })
  t.same(await client.closed, { code: 1012, reason: 'service restart' })
  t.match(await open(stub).failed, { code: 'ECONNREFUSED' })
})

tap.test('a journal keeps the newest entries within its bounds', async (t) => {
  const journal = new Journal<number>({ entriesMax: 3, weightMax: 10, weigh: (entry) => entry })
  const second = journal.wait(2)
  for (const entry of [1, 2, 3, 4]) journal.add(entry)
  t.same(journal.entries, [2, 3, 4])
  t.equal(await second, 2)
  t.equal(await journal.wait(4), 4)
  await t.rejects(journal.wait(1), { message: /not kept/ })
  journal.add(9)
  t.same(journal.entries, [9])
  journal.add(11)
  t.same(journal.entries, [11], 'the newest stays, whatever it weighs')
  t.equal(journal.total, 6)
})

tap.test('a printed handshake shows no credential and no control character', async (t) => {
  const secrets = ['Authorization', 'Proxy-Authorization', 'Cookie', 'X-OpenClaw-SA-Token']
  const more = ['CF-Access-Client-Secret', 'X-OpenClaw-K8s-Assertion', 'Sec-WebSocket-Protocol']
  const rawHeaders = [...secrets, ...more].flatMap((name) => [name, 'HIDDEN'])
  const line = describeHandshake({
    id: 7,
    rawHeaders: [...rawHeaders, 'X-Forwarded-For', '10.0.0.5', 'X-Odd', 'a\u009b31m"'],
    headers: {},
    path: '/path?token=HIDDEN',
    peerAddress: '127.0.0.1',
    peerPort: 5,
    at: 0,
  })
  t.notMatch(line, 'HIDDEN')
  t.match(line, 'Authorization=<present>')
  t.match(line, 'handshake 7 /path from 127.0.0.1 port 5')
  t.match(line, 'X-Forwarded-For="10.0.0.5"')
  t.match(line, 'X-Odd="a\\u009b31m\\""')
})

const MAIN = fileURLToPath(import.meta.resolve('@openclaw-k8s/gateway-stub/main.ts'))

function run(...flags: readonly string[]) {
  const child = spawn(process.execPath, [MAIN, ...flags], { stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stderr.on('data', (chunk) => (stderr += chunk))
  const heard = new Journal<string>({ entriesMax: 1000 })
  child.stdout.on('data', (chunk) => {
    stdout += chunk
    heard.add(stdout)
  })
  const says = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(stdout)
      if (found !== null) return found
      await heard.wait()
    }
  }
  const ended = once(child, 'close').then(([code]) => ({ code, stdout, stderr }))
  return { child, says, ended }
}

tap.test('the command line serves, prints handshakes and leaves on a signal with 0', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const { child, says, ended } = run('--port', '0')
    const [, url] = await says(/listens on (ws:\S+)\n/)
    const ws = new WebSocket(`${url}/p?token=HIDDEN`, { headers: { Authorization: 'HIDDEN' } })
    const closed = once(ws, 'close')
    await once(ws, 'open')
    await says(/handshake 1 \/p from 127\.0\.0\.1 .*Authorization=<present>.*\n/)
    child.kill(signal)
    const { code, stdout } = await ended
    t.equal(code, 0)
    t.equal((await closed)[0], 1012)
    t.notMatch(stdout, 'HIDDEN')
  }
})

tap.test('the command line asks for the secret of its token file', async (t) => {
  const dir = t.testdir({ token: 'secret\n' })
  const { child, says } = run('--port', '0', '--mode', 'openclaw', '--token-file', `${dir}/token`)
  t.teardown(() => child.kill())
  const [, url = ''] = await says(/listens on (ws:\S+)\n/)
  const node = await openReadyNode({ url } as GatewayStub)
  t.match(node.hello, { ok: true })
  node.ws.terminate()
})

tap.test('help exits 0; bad flags 64; an unreadable token file 78; a taken port 69', async (t) => {
  const stub = await start(t)
  const cases = [
    [['--help'], 0],
    [['--port', 'x'], 64],
    [['--port', '65536'], 64],
    [['--mode', 'other'], 64],
    [['--behavior', 'toString'], 64],
    [['--unknown'], 64],
    [['surplus'], 64],
    [['--port', '0', '--token-file', '/nonexistent'], 78],
    [['--port', String(stub.port)], 69],
  ] as const
  const results = await Promise.all(cases.map(([flags]) => run(...flags).ended))
  for (const [n, [flags, code]] of cases.entries()) {
    t.equal(results[n]?.code, code, flags.join(' '))
    if (code === 0) t.match(results[n]?.stdout, /^Usage: /)
    else t.match(results[n]?.stderr, /^gateway-stub: /)
  }
})
