/** The gateway stub misbehaves exactly as it is told. */

import { once } from 'node:events'
import type { GatewayStub } from '@openclaw-k8s/gateway-stub'
import tap from 'tap'
import { WebSocket } from 'ws'
import { open, openRaw, start } from '../kit/stub-clients.ts'

tap.test('stall never answers', async (t) => {
  const stub = await start(t, { behavior: 'stall' })
  const { socket, text } = await openRaw(stub)
  t.equal(stub.connections.size, 1)
  // The end of our side is the only event that can come.
  socket.end()
  t.equal(await text, '')
})

tap.test('refuse destroys the connection without a byte', async (t) => {
  const stub = await start(t, { behavior: 'refuse' })
  const { text } = await openRaw(stub)
  t.equal(await text, '')
})

tap.test('status answers what it was told, with trailing bytes behind the response', async (t) => {
  const stub = await start(t)
  for (const status of [200, 302, 400, 426, 500]) {
    stub.setBehavior({
      kind: 'status',
      status,
      headers: { 'X-Reason': 'test' },
      body: 'no',
      trailing: 'TRAILING',
    })
    const { text } = await openRaw(stub)
    t.match(
      await text,
      new RegExp(`^HTTP/1\\.1 ${status} [^]*X-Reason: test[^]*\r\n\r\nnoTRAILING$`),
    )
  }
})

tap.test('status can keep the connection open', async (t) => {
  const stub = await start(t, { behavior: { kind: 'status', status: 200, keepOpen: true } })
  const { socket, text } = await openRaw(stub)
  await once(socket, 'data')
  const connection = await stub.waitForConnection(1)
  connection.writeBytes(Buffer.from('still here'))
  await once(socket, 'data')
  socket.end()
  t.match(await text, /still here$/)
})

tap.test('wrong-accept answers 101 with a wrong key', async (t) => {
  const stub = await start(t, { behavior: 'wrong-accept' })
  t.match(await open(stub).failed, { message: 'Invalid Sec-WebSocket-Accept header' })
})

tap.test('extension claims a compression nobody asked for', async (t) => {
  const stub = await start(t, { behavior: 'extension' })
  const { failed } = open(stub, { perMessageDeflate: false })
  t.match(await failed, { message: /Sec-WebSocket-Extensions/ })
})

tap.test('subprotocol picks the first one offered, or claims another', async (t) => {
  const stub = await start(t, { behavior: 'subprotocol' })
  const client = open(stub, {}, ['one', 'two'])
  await client.opened
  t.equal(client.ws.protocol, 'one')
  stub.setBehavior({ kind: 'subprotocol', name: 'three' })
  t.match(await open(stub, {}, ['one']).failed, { message: /invalid subprotocol/ })
})

tap.test('close comes after the given number of messages, with its code and reason', async (t) => {
  const stub = await start(t, { behavior: { kind: 'close', code: 4000, reason: 'enough' } })
  t.same(await open(stub).closed, { code: 4000, reason: 'enough' })
  stub.setBehavior({ kind: 'close', code: 1008, afterMessages: 2 })
  const client = open(stub)
  await client.opened
  client.ws.send('one')
  await client.nextMessage()
  t.equal(client.ws.readyState, WebSocket.OPEN)
  client.ws.send('two')
  t.equal((await client.closed).code, 1008)
  t.equal(client.messages.total, 2)
})

tap.test('drop ends the TCP connection without a close frame', async (t) => {
  const stub = await start(t, { behavior: 'drop' })
  const dropped = open(stub)
  await dropped.opened
  t.equal((await dropped.closed).code, 1006)
  stub.setBehavior({ kind: 'drop', afterMessages: 1 })
  const client = open(stub)
  await client.opened
  client.ws.send('one')
  t.equal((await client.closed).code, 1006)
})

tap.test('silent reads nothing until it is resumed, and then all of it', async (t) => {
  const stub = await start(t, { behavior: 'silent' })
  const client = open(stub)
  const connection = await stub.waitForConnection(1)
  await client.opened
  client.ws.send('early')
  // More than the kernel's buffers of both ends can hold, so that some of it must stay with the client.
  for (let n = 0; n < 4; n += 1) client.ws.send(Buffer.alloc(8_000_000, n))
  stub.setBehavior('accept')
  const other = open(stub)
  await other.opened
  // A round trip elsewhere gives the stub every chance to read what came before it.
  other.ws.send('later')
  await other.nextMessage()
  t.same(
    stub.received.map(({ data }) => data.toString()),
    ['later'],
  )
  t.ok(client.ws.bufferedAmount > 0)
  connection.resume()
  t.equal((await client.nextMessage()).data.toString(), 'early')
  for (let n = 0; n < 4; n += 1) {
    const { data } = await client.nextMessage()
    t.ok(data.equals(Buffer.alloc(8_000_000, n)))
  }
})

tap.test('mute answers neither a ping nor a close', async (t) => {
  const stub = await start(t, { behavior: 'mute' })
  const client = open(stub)
  const connection = await stub.waitForConnection(1)
  await client.opened
  let answers = 0
  client.ws.on('pong', () => (answers += 1))
  client.ws.ping()
  client.ws.close(1000)
  // What the stub sends unasked arrives after any answer it would have given.
  connection.send('spoken')
  t.equal((await client.nextMessage()).data.toString(), 'spoken')
  t.equal(answers, 0)
  t.equal(client.ws.readyState, WebSocket.CLOSING)
  client.ws.terminate()
  t.equal((await connection.closed).code, 1006)
})

tap.test('a mute connection frames short, long and very long messages correctly', async (t) => {
  const stub = await start(t, { behavior: 'mute' })
  const client = open(stub)
  const connection = await stub.waitForConnection(1)
  for (const length of [0, 125, 126, 65_535, 65_536]) {
    connection.send(Buffer.alloc(length, 7))
    t.same((await client.nextMessage()).data.length, length)
  }
  connection.close(1001, 'bye')
  t.same(await client.closed, { code: 1001, reason: 'bye' })
})

/** Turns of the event loop in which the stub could do what it should not. */
async function makeRoundTrips(stub: GatewayStub, count: number): Promise<void> {
  const client = open(stub)
  await client.opened
  for (let n = 0; n < count; n += 1) {
    client.ws.send('turn')
    await client.nextMessage()
  }
  client.ws.close()
}

tap.test('flood sends all it was told, no faster than it is read', async (t) => {
  const stub = await start(t)
  stub.setBehavior({ kind: 'flood', messages: 1000, messageBytes: 65_536 }, { connections: 1 })
  const client = open(stub)
  await client.opened
  client.ws.pause()
  const connection = await stub.waitForConnection(1)
  await makeRoundTrips(stub, 1)
  t.ok(connection.bufferedBytes() > 0)
  t.ok(connection.bufferedBytes() < 1_200_000)
  client.ws.resume()
  for (let n = 0; n < 1000; n += 1) {
    const { data } = await client.nextMessage()
    if (!data.equals(Buffer.alloc(65_536, n % 256))) t.fail(`message ${n} differs`)
  }
  client.ws.send('and it still echoes')
  t.equal((await client.nextMessage()).data.toString(), 'and it still echoes')
  t.equal(client.messages.total, 1001)
})

tap.test('an echo to a reader that does not read is not queued without bound', async (t) => {
  const stub = await start(t)
  const client = open(stub)
  await client.opened
  const connection = await stub.waitForConnection(1)
  client.ws.pause()
  for (let n = 0; n < 40; n += 1) client.ws.send(Buffer.alloc(1_000_000, n))
  await makeRoundTrips(stub, 300)
  t.ok(connection.bufferedBytes() < 4_000_000)
  client.ws.resume()
  for (let n = 0; n < 40; n += 1) {
    const { data } = await client.nextMessage()
    if (!data.equals(Buffer.alloc(1_000_000, n))) t.fail(`message ${n} differs`)
  }
})

tap.test('a behavior can be limited to the next connections', async (t) => {
  const stub = await start(t)
  stub.setBehavior('refuse', { connections: 2 })
  await open(stub).failed
  await open(stub).failed
  await open(stub).opened
  stub.setBehavior('refuse', { connections: 5 })
  stub.setBehavior('accept')
  await open(stub).opened
  t.equal(stub.handshakes.length, 4)
})
