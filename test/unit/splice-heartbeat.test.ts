/** A silent stream is pinged, and closed when nobody answers. */

import { once } from 'node:events'
import { pingFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { test } from 'tap'
import {
  socketPair,
  collect,
  closeAtEnd,
  rawStream,
  realStream,
  up,
  down,
  manyFrames,
} from '../kit/splice-rig.ts'

const PING = pingFrame({ masked: false })

test('silent sides are pinged, and a stream silent for two pings is closed', async (t) => {
  const raw = await rawStream(t)
  raw.stream.ping()
  raw.stream.ping()
  t.ok((await raw.atWorker.has(4)).equals(Buffer.concat([PING, PING])))
  const pings = await raw.atGateway.has(12)
  t.same([pings[0], pings[1], pings[6], pings[7]], [0x89, 0x80, 0x89, 0x80])
  t.notOk(raw.stream.isClosing)
  raw.stream.ping()
  t.equal(
    closeAtEnd(await raw.atWorker.all(), Buffer.concat([PING, PING]), false),
    '1001 idle_timeout',
  )
  t.equal(closeAtEnd(await raw.atGateway.all(), pings, true), '1001 idle_timeout')
  raw.worker.end()
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'idle_timeout')
})

test('real peers answer the pings and stay', async (t) => {
  const { worker, gateway, stream, summary } = await realStream(t)
  for (let period = 0; period < 6; period += 1) {
    // The pong of each is relayed to the other, so that both have been heard.
    const answered = Promise.all([once(worker, 'pong'), once(gateway, 'pong')])
    stream.ping()
    await answered
    stream.ping()
  }
  t.notOk(stream.isClosing)
  worker.close()
  t.equal((await summary).code, 'completed')
})

test('a side that talks is not pinged', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(up('here'))
  await raw.atGateway.has(10)
  raw.stream.ping()
  t.equal((await raw.atGateway.has(16)).length, 16)
  raw.gateway.write(down('and here'))
  t.ok((await raw.atWorker.has(10)).equals(down('and here')))
  raw.stream.destroy()
})

test('no ping is put inside a frame', async (t) => {
  const raw = await rawStream(t)
  const sent = up('x'.repeat(100))
  raw.worker.write(sent.subarray(0, 50))
  await raw.atGateway.has(50)
  raw.stream.ping()
  raw.worker.write(sent.subarray(50))
  t.ok((await raw.atGateway.has(sent.length)).equals(sent))
  raw.stream.ping()
  t.equal((await raw.atGateway.has(sent.length + 6))[sent.length], 0x89)
  raw.stream.destroy()
})

test('a side that receives a long frame is not closed for its silence', async (t) => {
  const raw = await rawStream(t)
  const sent = up('x'.repeat(1000))
  for (let at = 0; at < 1000; at += 100) {
    raw.worker.write(sent.subarray(at, at + 100))
    await raw.atGateway.has(at + 100)
    raw.stream.ping()
  }
  t.notOk(raw.stream.isClosing)
  raw.stream.destroy()
})

test('a stream stalled inside a frame of each side is not kept for ever', async (t) => {
  const raw = await rawStream(t)
  raw.worker.write(up('x'.repeat(100)).subarray(0, 50))
  raw.gateway.write(down('x'.repeat(100)).subarray(0, 50))
  await Promise.all([raw.atGateway.has(50), raw.atWorker.has(50)])
  for (let period = 0; period < 4; period += 1) raw.stream.ping()
  t.ok(raw.stream.isClosing)
  raw.clock.advance(5000)
  t.equal((await raw.summary()).code, 'idle_timeout')
})

test('a side that is not read because the other is slow is neither pinged nor closed', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const backedUp = once(worker.ours, 'pause')
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  worker.peer.write(manyFrames(24 * 2 ** 20, true))
  await backedUp
  const atWorker = collect(worker.peer)
  // The gateway talks, but does not read.
  for (let period = 0; period < 5; period += 1) {
    gateway.peer.write(down(`period ${period}`))
    await atWorker.has((period + 1) * down('period 0').length)
    raw.stream.ping()
  }
  t.notOk(raw.stream.isClosing)
  const expected = [0, 1, 2, 3, 4].map((period) => down(`period ${period}`))
  t.ok(atWorker.bytes().equals(Buffer.concat(expected)))
  raw.stream.destroy()
})
