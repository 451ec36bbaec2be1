/** A splice that is closed from outside finishes the frames under way and says why at both ends. */

import { once } from 'node:events'
import { closeFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { test } from 'tap'
import {
  EMPTY,
  socketPair,
  collect,
  closeAtEnd,
  rawStream,
  realStream,
  closeOf,
  up,
  down,
} from '../kit/splice-rig.ts'

test('a revocation is 1008 at both ends', async (t) => {
  const { worker, gateway, stream, summary } = await realStream(t)
  const closes = Promise.all([closeOf(worker), closeOf(gateway)])
  t.notOk(stream.isClosing)
  stream.close('identity_not_allowed')
  t.ok(stream.isClosing)
  t.same(await closes, ['1008 identity_not_allowed', '1008 identity_not_allowed'])
  t.equal((await summary).code, 'identity_not_allowed')
})

test('the first code wins, and a second close does nothing', async (t) => {
  const raw = await rawStream(t)
  raw.stream.close('draining')
  raw.stream.close('identity_not_allowed')
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1012 draining')
  t.equal(closeAtEnd(await raw.atGateway.all(), EMPTY, true), '1012 draining')
  raw.worker.end()
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'draining')
  raw.stream.close('token_expired')
  raw.stream.destroy()
})

test('a close inside frames lets both frames finish, and no more', async (t) => {
  const raw = await rawStream(t)
  const [sent, answer] = [up('x'.repeat(1000)), down('y'.repeat(1000))]
  raw.worker.write(sent.subarray(0, 500))
  raw.gateway.write(answer.subarray(0, 500))
  await Promise.all([raw.atGateway.has(500), raw.atWorker.has(500)])
  raw.stream.close('identity_not_allowed')
  raw.worker.write(Buffer.concat([sent.subarray(500), up('revoked')]))
  raw.gateway.write(Buffer.concat([answer.subarray(500), down('revoked')]))
  const [atGateway, atWorker] = await Promise.all([raw.atGateway.all(), raw.atWorker.all()])
  t.equal(closeAtEnd(atGateway, sent, true), '1008 identity_not_allowed')
  t.equal(closeAtEnd(atWorker, answer, false), '1008 identity_not_allowed')
  raw.worker.end()
  raw.gateway.end()
  t.match(await raw.summary(), { counts: { bytesUp: sent.length, messagesUp: 1 } })
})

test('a frame that never ends is cut at the deadline, the other side closed cleanly', async (t) => {
  const raw = await rawStream(t)
  const sent = up('x'.repeat(1000))
  raw.worker.write(sent.subarray(0, 500))
  await raw.atGateway.has(500)
  raw.stream.close('identity_not_allowed')
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1008 identity_not_allowed')
  raw.clock.advance(4999)
  t.notOk(raw.gatewaySide.destroyed)
  raw.clock.advance(1)
  t.equal((await raw.summary()).code, 'identity_not_allowed')
  t.equal(raw.atGateway.bytes().length, 500)
})

test('our close frame does not follow a close frame of the peer', async (t) => {
  const raw = await rawStream(t)
  const bye = closeFrame({ code: 1000, reason: 'bye', masked: true })
  raw.worker.write(bye)
  await raw.atGateway.has(bye.length)
  raw.stream.close('draining')
  t.ok((await raw.atGateway.all()).equals(bye))
  t.equal(closeAtEnd(await raw.atWorker.all(), EMPTY, false), '1012 draining')
  raw.worker.end()
  raw.gateway.end()
  t.equal((await raw.summary()).code, 'draining')
})

test('a peer that neither reads nor leaves is dropped at the deadline', async (t) => {
  const raw = await rawStream(t, { closeTimeoutMs: 100 })
  raw.stream.close('draining')
  raw.clock.advance(100)
  t.equal((await raw.summary()).code, 'draining')
})

test('destroy drops both sockets at once', async (t) => {
  const raw = await rawStream(t)
  raw.stream.destroy()
  t.equal((await raw.summary()).code, 'draining')
  t.ok(raw.workerSide.destroyed && raw.gatewaySide.destroyed)
  raw.stream.close('token_expired')
  t.equal(raw.clock.pending, 0, 'a stream that is over arms nothing')
})

test('a close waits for the frame a slow reader still takes, and comes right after it', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  const backedUp = once(gateway.ours, 'pause')
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  const long = down('x'.repeat(20 * 2 ** 20))
  gateway.peer.write(Buffer.concat([long, down('revoked')]))
  await backedUp
  raw.stream.close('identity_not_allowed')
  const bytes = await collect(worker.peer).all()
  t.equal(closeAtEnd(bytes, long, false), '1008 identity_not_allowed')
  worker.peer.end()
  gateway.peer.end()
  gateway.peer.resume()
  t.match(await raw.summary(), { code: 'identity_not_allowed', counts: { messagesDown: 1 } })
})
