/** What a worker sends during its admission waits whole, in order, and in little memory. */

import { Buffer } from 'node:buffer'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { connect as connectTls, createServer as createTlsServer } from 'node:tls'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { test, type Test } from 'tap'
import { EarlyBytes } from '@openclaw-k8s/auth-sidecar/edge/early-bytes.ts'
import { createAuthority } from '../kit/authority.ts'
import { waitUntil } from '../kit/wait.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const EMPTY = Buffer.alloc(0)
const HIGH_WATER_MARK = 65_536
const SIZES = [1, 2, 7, 1000, 1024, 30_000, 65_535, 65_536, 65_537, 100_000]

/** Bytes in which no two stretches are alike. */
const numbered = (size: number): Buffer => {
  const bytes = Buffer.alloc(size + 4)
  for (let at = 0; at < size; at += 4) bytes.writeUInt32BE(at, at)
  return bytes.subarray(0, size)
}

/** A socket that receives `bytes` in chunks of `size`, as its handle would: until it is not read. */
const sourceOf = (bytes: Buffer, size: number) => {
  let at = 0
  let isReading = true
  const receive = (): void => {
    while (isReading && at < bytes.length) {
      const chunk = Buffer.from(bytes.subarray(at, at + size))
      at += chunk.length
      isReading = socket.push(chunk)
    }
    if (isReading) socket.push(null)
  }
  const socket = new Duplex({
    highWaterMark: HIGH_WATER_MARK,
    read() {
      if (isReading) return
      isReading = true
      setImmediate(receive)
    },
  })
  // Node reads from the moment of the accept, whether anybody listens or not.
  setImmediate(receive)
  return { socket, received: () => at }
}

/** Everything that still comes out of `socket`. */
const drain = async (socket: Duplex): Promise<Buffer> => {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.resume()
  if (!socket.readableEnded) await once(socket, 'end')
  return Buffer.concat(chunks)
}

for (const total of [1, 65_535, 65_536, 150_000]) {
  test(`${total} bytes arrive whole and in order, whatever the sizes of the chunks`, async (t) => {
    const bytes = numbered(total)
    for (const size of SIZES) {
      for (const headSize of [0, 1024, HIGH_WATER_MARK, 70_000]) {
        const head = Buffer.from(bytes.subarray(0, headSize))
        const { socket } = sourceOf(bytes.subarray(head.length), size)
        const early = new EarlyBytes(socket)
        early.start(head)
        await turn()
        await turn()
        const held = early.stop()
        const all = Buffer.concat([held, await drain(socket)])
        t.ok(all.equals(bytes), `chunks of ${size} behind a head of ${headSize}`)
      }
    }
  })
}

test('a stop and a second start lose nothing and keep the order', async (t) => {
  const bytes = numbered(150_000)
  for (const size of SIZES) {
    const { socket } = sourceOf(bytes, size)
    const early = new EarlyBytes(socket)
    early.start(EMPTY)
    for (let round = 0; round < 5; round += 1) {
      await turn()
      const held = early.stop()
      // As a reader of the first message does, which takes some bytes and gives back the others.
      if (round % 2 === 0) early.start(held)
      else {
        socket.unshift(held)
        early.start(EMPTY)
      }
    }
    const held = early.stop()
    const all = Buffer.concat([held, await drain(socket)])
    t.ok(all.equals(bytes), `chunks of ${size}`)
  }
})

test('reading stops in the turn in which the high-water mark is reached', async (t) => {
  for (const size of SIZES) {
    const { socket, received } = sourceOf(numbered(1_000_000), size)
    const early = new EarlyBytes(socket)
    early.start(EMPTY)
    for (let n = 0; n < 10; n += 1) await turn()
    t.ok(received() < HIGH_WATER_MARK + size, `${received()} bytes in chunks of ${size}`)
    t.equal(early.held.length + socket.readableLength, received())
  }
})

test('single bytes are held in at most twice the high-water mark of memory', async (t) => {
  const count = 5
  const usedBytes = (): number => {
    collect()
    collect()
    const { heapUsed, external } = process.memoryUsage()
    return heapUsed + external
  }
  const bytes = numbered(2 * HIGH_WATER_MARK)
  for (const total of [HIGH_WATER_MARK - 1, 2 * HIGH_WATER_MARK]) {
    const before = usedBytes()
    const held: EarlyBytes[] = []
    for (let n = 0; n < count; n += 1) {
      const { socket } = sourceOf(bytes.subarray(0, total), 1)
      const early = new EarlyBytes(socket)
      early.start(EMPTY)
      for (let wait = 0; wait < 4; wait += 1) await turn()
      held.push(early)
    }
    const each = (usedBytes() - before) / held.length
    t.ok(each <= 2 * HIGH_WATER_MARK, `${each} bytes each for ${total} received`)
  }
})

test('the end of a peer is told at once, and its bytes are still there', async (t) => {
  const { socket } = sourceOf(numbered(1000), 10)
  const early = new EarlyBytes(socket)
  early.start(EMPTY)
  await once(socket, 'end')
  t.ok(early.stop().equals(numbered(1000)))
})

/** Both ends of a connection. */
const pairOf = async (t: Test, isTls: boolean): Promise<readonly [Socket, Socket]> => {
  const authority = isTls ? await createAuthority() : undefined
  const issued = await authority?.issue({ commonName: 'localhost', usage: 'server' })
  const server = issued === undefined ? createServer() : createTlsServer(issued)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const accepted = once(server, isTls ? 'secureConnection' : 'connection')
  const client =
    authority === undefined
      ? connect(port, '127.0.0.1')
      : connectTls({ port, host: '127.0.0.1', servername: 'localhost', ca: authority.cert })
  const [socket] = (await accepted) as [Socket]
  for (const end of [socket, client]) end.on('error', () => {})
  t.teardown(() => {
    for (const end of [socket, client]) end.destroy()
    server.close()
  })
  return [socket, client]
}

for (const [name, isTls] of [
  ['TCP', false],
  ['TLS', true],
] as const) {
  test(`over ${name} the rest waits at the peer, and arrives whole and in order`, async (t) => {
    const bytes = numbered(20_000_000)
    const [socket, client] = await pairOf(t, isTls)
    const early = new EarlyBytes(socket)
    early.start(EMPTY)
    client.write(bytes.subarray(0, 1))
    client.write(bytes.subarray(1, 5000))
    client.end(bytes.subarray(5000))
    await waitUntil(() => socket.readableLength >= HIGH_WATER_MARK)
    for (let n = 0; n < 20; n += 1) await turn()
    t.equal(early.held.length, 0, 'everything is back in the socket')
    t.ok(socket.readableLength <= 3 * HIGH_WATER_MARK, `${socket.readableLength} bytes`)
    const all = Buffer.concat([early.stop(), await drain(socket)])
    t.ok(all.equals(bytes))
  })
}
