/** When one peer leaves, the other gets a true close code and nothing is left behind. */

import { once } from 'node:events'
import type { Socket } from 'node:net'
import { closeFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { test } from 'tap'
import {
  EMPTY,
  socketPair,
  collect,
  closeAtEnd,
  rawStream,
  up,
  down,
  manyFrames,
} from '../kit/splice-rig.ts'

test("after a close handshake of the peers we end the worker's connection, and the gateway ends its own", async (t) => {
  const raw = await rawStream(t)
  const bye = closeFrame({ code: 1000, reason: 'bye', masked: true })
  const reply = closeFrame({ code: 1000, reason: 'bye', masked: false })
  raw.worker.write(bye)
  await raw.atGateway.has(bye.length)
  raw.gateway.write(reply)
  t.ok((await raw.atWorker.all()).equals(reply))
  t.notOk(raw.gatewaySide.writableEnded)
  raw.gateway.end()
  raw.worker.end()
  t.ok((await raw.atGateway.all()).equals(bye))
  t.equal((await raw.summary()).code, 'completed')
})

test('after a close handshake no peer is waited for beyond the deadline', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(closeFrame({ code: 1000, reason: '', masked: true }))
  raw.gateway.write(closeFrame({ code: 1000, reason: '', masked: false }))
  await raw.atWorker.all()
  t.ok(raw.stream.isClosing)
  raw.stream.close('token_expired')
  raw.clock.advance(5000)
  t.equal((await raw.summary()).code, 'completed', 'a code that came too late does not count')
})

test('a gateway that hangs up on a close frame completes the stream', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(closeFrame({ code: 1000, reason: '', masked: true }))
  await raw.atGateway.has(8)
  raw.gateway.end()
  t.equal((await raw.atWorker.all()).length, 0)
  raw.worker.end()
  t.equal((await raw.summary()).code, 'completed')
})

test('a worker that ends without a word is 1001 at the gateway', async (t) => {
  const raw = await rawStream(t)
  raw.worker.end(up('last words').subarray(0, 3))
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker whose connection is reset is 1001 at the gateway', async (t) => {
  const raw = await rawStream(t)
  raw.worker.resetAndDestroy()
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker that ends inside a frame leaves the gateway an end without a close frame', async (t) => {
  const raw = await rawStream(t)
  const sent = up('x'.repeat(100)).subarray(0, 50)
  raw.worker.end(sent)
  t.ok((await raw.atGateway.all()).equals(sent))
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker that ends is let go at once, even when the gateway is inside a frame', async (t) => {
  const raw = await rawStream(t)
  const answer = down('y'.repeat(1000))
  raw.gateway.write(answer.subarray(0, 500))
  await raw.atWorker.has(500)
  raw.worker.end()
  t.equal((await raw.atWorker.all()).length, 500)
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end(answer.subarray(500))
  t.match(await raw.summary(), { code: 'worker_gone', counts: { bytesDown: 500, framesDown: 0 } })
})

for (const [how, leave] of [
  ['ends without a word', (socket: Socket) => void socket.end()],
  ['is reset', (socket: Socket) => void socket.resetAndDestroy()],
] as const) {
  test(`a gateway that ${how} is 1013 at the worker`, async (t) => {
    const raw = await rawStream(t)
    leave(raw.gateway)
    t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1013 gateway_gone')
    raw.worker.end()
    t.equal((await raw.summary()).code, 'gateway_gone')
  })
}

test('what a gateway said before it ended reaches the worker first', async (t) => {
  const raw = await rawStream(t)
  raw.gateway.end(down('last words'))
  t.equal(closeAtEnd(await raw.atWorker.all(), down('last words'), false), '1013 gateway_gone')
  raw.worker.end()
  t.match(await raw.summary(), { code: 'gateway_gone', counts: { messagesDown: 1 } })
})

test('a worker is kept for the delay when its gateway goes', async (t) => {
  const raw = await rawStream(t, { gatewayGoneDelayMs: () => 700 })
  raw.gateway.end()
  await raw.atGateway.all()
  t.ok(raw.stream.isClosing)
  raw.worker.write(up('nobody listens'))
  raw.clock.advance(699)
  t.notOk(raw.workerSide.writableEnded)
  raw.clock.advance(1)
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1013 gateway_gone')
  raw.worker.end()
  t.equal((await raw.summary()).code, 'gateway_gone')
})

test('a close during the delay does not wait for it, and the first code stays', async (t) => {
  const raw = await rawStream(t, { gatewayGoneDelayMs: () => 700 })
  raw.gateway.end()
  await raw.atGateway.all()
  raw.stream.close('draining')
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1013 gateway_gone')
  raw.worker.end()
  t.equal((await raw.summary()).code, 'gateway_gone')
})

test('a worker that leaves during the delay ends the stream', async (t) => {
  const raw = await rawStream(t, { gatewayGoneDelayMs: () => 700 })
  raw.gateway.end()
  await raw.atGateway.all()
  raw.worker.end()
  t.equal((await raw.summary()).code, 'gateway_gone')
})

test('a worker that was gone before the splice is noticed', async (t) => {
  const { ours } = await socketPair(t)
  ours.destroy()
  await once(ours, 'close')
  const raw = await rawStream(t, { worker: ours })
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1001 worker_gone')
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker that vanishes while the gateway is paused frees the gateway', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const backedUp = once(gateway.ours, 'pause')
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  gateway.peer.write(manyFrames(24 * 2 ** 20, false))
  await backedUp
  const atGateway = collect(gateway.peer)
  worker.peer.resetAndDestroy()
  t.equal(closeAtEnd(await atGateway.all(), EMPTY, true), '1001 worker_gone')
  gateway.peer.end()
  t.equal((await raw.summary()).code, 'worker_gone')
})

test('a worker that vanishes after its close frame frees a paused gateway', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const backedUp = once(gateway.ours, 'pause')
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  const atGateway = collect(gateway.peer)
  gateway.peer.end(manyFrames(24 * 2 ** 20, false))
  await backedUp
  const bye = closeFrame({ code: 1000, reason: '', masked: true })
  worker.peer.write(bye)
  await atGateway.has(bye.length)
  worker.peer.resetAndDestroy()
  t.ok((await atGateway.all()).equals(bye))
  t.equal((await raw.summary()).code, 'completed')
})
