/** A splice holds bounded memory for a slow reader, and loses nothing. */

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { GatewayReader } from '@openclaw-k8s/auth-sidecar/tunnel/gateway-reader.ts'
import { closeFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { test } from 'tap'
import { listen, socketPair, collect, rawStream, up, manyFrames } from '../kit/splice-rig.ts'
import { waitUntil } from '../kit/wait.ts'

for (const side of ['worker', 'gateway'] as const) {
  test(`a ${side} that reads slowly loses nothing and costs bounded memory`, async (t) => {
    const bytes = manyFrames(24 * 2 ** 20, side === 'gateway')
    const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
    const ends = { worker: worker.ours, gateway: gateway.ours }
    const [sink, source] =
      side === 'worker' ? [worker.ours, gateway.ours] : [gateway.ours, worker.ours]
    const [reader, writer] =
      side === 'worker' ? [worker.peer, gateway.peer] : [gateway.peer, worker.peer]
    const backedUp = once(source, 'pause')
    let queuedMax = 0
    source.on('data', () => (queuedMax = Math.max(queuedMax, sink.writableLength)))
    const { stream } = await rawStream(t, ends)
    writer.end(
      Buffer.concat([bytes, closeFrame({ code: 1000, reason: '', masked: side === 'gateway' })]),
    )
    await backedUp
    queuedMax = Math.max(queuedMax, sink.writableLength)
    t.ok(sink.writableNeedDrain)
    t.ok(source.isPaused())

    const hash = createHash('sha256')
    let read = 0
    // Small sips, a turn of the loop between them.
    while (read < bytes.length) {
      const chunk = reader.read() as Buffer | null
      if (chunk === null) {
        await once(reader, 'readable')
        continue
      }
      const part = chunk.subarray(0, bytes.length - read)
      hash.update(part)
      read += part.length
      await turn()
    }
    t.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'))
    const bound = sink.writableHighWaterMark + source.readableHighWaterMark + 65_536 + 14
    t.ok(queuedMax <= bound, `${queuedMax} B were queued`)
    stream.destroy()
  })
}

test('a worker that reads slowly gets everything that a gateway reader read', async (t) => {
  const worker = await socketPair(t)
  const reader = new GatewayReader()
  const server = createServer({ allowHalfOpen: true })
  const port = await listen(server)
  const accepted = once(server, 'connection')
  const { onread } = reader
  const gateway = connect({ port, host: '127.0.0.1', allowHalfOpen: true, onread })
  reader.attach(gateway)
  const [peer] = (await accepted) as [Socket]
  server.close()
  t.teardown(() => {
    gateway.destroy()
    peer.destroy()
  })
  const bytes = manyFrames(48 * 2 ** 20, false)
  const { stream } = await rawStream(t, { worker: worker.ours, gateway, gatewayReader: reader })
  peer.write(bytes)
  const hash = createHash('sha256')
  let read = 0
  for (let mouthfuls = 0; read < bytes.length; mouthfuls += 1) {
    // At first it takes nothing until all that can be queued is queued.
    await waitUntil(() => mouthfuls >= 3 || worker.ours.writableNeedDrain)
    for (let taken = 0; taken < 6 * 2 ** 20 && read < bytes.length;) {
      const chunk = worker.peer.read() as Buffer | null
      if (chunk === null) {
        await once(worker.peer, 'readable')
        continue
      }
      hash.update(chunk)
      read += chunk.length
      taken += chunk.length
    }
  }
  t.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'))
  stream.destroy()
})

test('the memory of a read is released when it is written, and not before', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const read: Buffer[] = []
  worker.ours.on('data', (chunk: Buffer) => read.push(chunk))
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  const atGateway = collect(gateway.peer)
  const small = up('x'.repeat(1000))
  worker.peer.write(small)
  await atGateway.has(small.length)
  t.same(
    read.map(({ length }) => length),
    [0],
    'what the kernel took at once',
  )

  const large = manyFrames(24 * 2 ** 20, true)
  const backedUp = once(worker.ours, 'pause')
  gateway.peer.pause()
  worker.peer.write(large)
  await backedUp
  const last = read.at(-1)
  t.equal(last?.length, gateway.ours.writableLength, 'what a slow reader has yet to take')
  const drained = once(gateway.ours, 'drain')
  gateway.peer.resume()
  await drained
  t.equal(last?.length, 0, 'what it took')
  const expected = Buffer.concat([small, large])
  t.ok((await atGateway.has(expected.length)).equals(expected))
  raw.stream.destroy()
})

test('a chunk that shares its memory with others keeps it', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  const memory = Buffer.alloc(64, 0xff)
  const frame = up('part')
  frame.copy(memory)
  worker.ours.push(memory.subarray(0, frame.length))
  t.ok((await collect(gateway.peer).has(frame.length)).equals(frame))
  t.equal(memory.length, 64)
  t.equal(memory[63], 0xff)
  raw.stream.destroy()
})
