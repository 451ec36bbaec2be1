/** Memory that many sockets are read into is never overwritten while a write still holds it. */

import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { test, type Test } from 'tap'
import { GatewayReader, ReadMemory } from '@openclaw-k8s/auth-sidecar/tunnel/gateway-reader.ts'

/** A peer, and a reader of what it sends, whose sink queues everything until it is released. */
async function readerOf(t: Test, memory: ReadMemory) {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const reader = new GatewayReader(memory)
  const accepted = once(server, 'connection')
  const { port } = server.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1', onread: reader.onread })
  reader.attach(socket)
  const [peer] = (await accepted) as [Socket]
  server.close()
  t.teardown(() => {
    socket.destroy()
    peer.destroy()
  })
  const queued: Buffer[] = []
  const sink = { writableLength: 0 }
  const state = { isStuck: false, arrived: 0, notice: (): void => {} }
  const take = (bytes: Buffer): void => {
    queued.push(bytes)
    state.arrived += bytes.length
    if (state.isStuck) sink.writableLength += bytes.length
    state.notice()
  }
  socket.on('data', take)
  return {
    reader,
    socket,
    peer,
    /** What the sink was given and has, or has not, written. */
    queued: () => Buffer.concat(queued),
    start: () => reader.start({ sink, take: (bytes, size) => take(bytes.subarray(0, size)) }),
    stick: () => (state.isStuck = true),
    drain: () => {
      state.isStuck = false
      sink.writableLength = 0
      queued.length = 0
      reader.drained()
    },
    has: async (size: number) => {
      while (state.arrived < size) await new Promise<void>((resolve) => (state.notice = resolve))
      state.arrived -= size
    },
  }
}

const filled = (size: number, value: number): Buffer => Buffer.alloc(size, value)

test('a small read held by a write survives the reads of other sockets', async (t) => {
  const memory = new ReadMemory()
  const [one, other] = [await readerOf(t, memory), await readerOf(t, memory)]
  for (const each of [one, other]) {
    each.start()
    each.socket.resume()
  }
  one.stick()
  for (const value of [1, 2, 3]) {
    one.peer.write(filled(1000, value))
    await one.has(1000)
    other.peer.write(filled(2000, 9))
    await other.has(2000)
  }
  t.ok(one.queued().equals(Buffer.concat([1, 2, 3].map((value) => filled(1000, value)))))
  one.drain()
})

test('a large read held by a write survives the next reads of the same socket', async (t) => {
  const one = await readerOf(t, new ReadMemory())
  one.start()
  one.socket.resume()
  one.peer.write(filled(100_000, 1))
  await one.has(100_000)
  one.drain()
  one.stick()
  const sizes = [60_000, 300_000, 60_000, 500, 70_000]
  for (const [value, size] of sizes.entries()) {
    one.peer.write(filled(size, value))
    await one.has(size)
  }
  t.ok(one.queued().equals(Buffer.concat(sizes.map((size, value) => filled(size, value)))))
  one.drain()
  one.peer.write(filled(80_000, 7))
  await one.has(80_000)
  t.ok(one.queued().equals(filled(80_000, 7)))
})

test('everything comes out of the stream until the reader is started and the stream is empty', async (t) => {
  const one = await readerOf(t, new ReadMemory())
  one.socket.removeAllListeners('data')
  one.socket.pause()
  one.peer.write('early ')
  one.socket.on('readable', () => {})
  await once(one.socket, 'readable')
  t.equal(one.socket.readableLength, 6)
  one.start()
  one.peer.write('and late')
  while (one.socket.readableLength < 14) await once(one.socket, 'readable')
  const read: Buffer[] = []
  for (let chunk = one.socket.read(); chunk !== null; chunk = one.socket.read()) {
    read.push(chunk as Buffer)
  }
  t.equal(String(Buffer.concat(read)), 'early and late')
  t.equal(one.queued().length, 0)
})

test('a bounded number of sockets is lent private memory, and gives it back', async (t) => {
  const memory = new ReadMemory()
  const lent = []
  for (let own = memory.lend(); own !== undefined; own = memory.lend()) lent.push(own)
  t.equal(lent.length, 64)
  t.equal(new Set(lent).size, 64)
  const [first] = lent
  memory.take(first!)
  t.equal(memory.lend(), first)
  t.equal(memory.lend(), undefined)
  memory.forget()
  t.not(memory.lend(), undefined)
  for (const own of lent) memory.take(own)

  const one = await readerOf(t, memory)
  const free = () => {
    const all = []
    for (let own = memory.lend(); own !== undefined; own = memory.lend()) all.push(own)
    for (const own of all) memory.take(own)
    return all.length
  }
  one.start()
  one.socket.resume()
  one.peer.write(filled(200_000, 1))
  await one.has(200_000)
  t.equal(free(), 63, 'one is lent to a socket that is fed much')
  for (let nth = 0; nth < 12; nth += 1) {
    one.peer.write('x')
    await one.has(1)
  }
  t.equal(free(), 64, 'and comes back when it is fed little')
  one.peer.write(filled(200_000, 1))
  await one.has(200_000)
  one.reader.stop()
  t.equal(free(), 64, 'or is gone')
})
