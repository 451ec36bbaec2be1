/** Messages pass through a splice byte for byte, in both directions and in order. */

import { once } from 'node:events'
import { test } from 'tap'
import { socketPair, collect, rawStream, realStream, closeOf, up, down } from '../kit/splice-rig.ts'

test('messages of real peers pass both ways and are counted', async (t) => {
  const { worker, gateway, stream, summary } = await realStream(t)
  const echoed: string[] = []
  gateway.on('message', (data: Buffer) => gateway.send(`echo ${data.toString()}`))
  worker.on('message', (data: Buffer) => echoed.push(data.toString()))
  for (const text of ['', 'a', 'b'.repeat(200), 'c'.repeat(70_000)]) worker.send(text)
  while (echoed.length < 4) await once(worker, 'message')
  t.same(
    echoed.map((text) => text.length),
    [5, 6, 205, 70_005],
  )
  const payload = 70_201
  t.same(stream.counts, {
    bytesUp: payload + 6 + 6 + 8 + 14,
    bytesDown: payload + 20 + 2 + 2 + 4 + 10,
    messagesUp: 4,
    messagesDown: 4,
    framesUp: 4,
    framesDown: 4,
  })
  worker.close(1000, 'done')
  t.same(await Promise.all([closeOf(worker), closeOf(gateway)]), ['1000 done', '1000 done'])
  t.match(await summary, { code: 'completed', counts: { messagesUp: 4, framesUp: 5 } })
})

test('a close of the gateway reaches the worker as it is', async (t) => {
  const { worker, gateway, summary } = await realStream(t)
  gateway.close(4001, 'go')
  t.same(await Promise.all([closeOf(worker), closeOf(gateway)]), ['4001 go', '4001 go'])
  t.equal((await summary).code, 'completed')
})

test('heads come first and in order, even if they end inside a header', async (t) => {
  const sent = Buffer.concat([up('first'), up('second'), up('third')])
  const answer = Buffer.concat([down('hello'), down('world')])
  for (const at of [1, 5, 11, 12, 14, 20]) {
    const raw = await rawStream(t, {
      workerHead: sent.subarray(0, at),
      gatewayHead: answer.subarray(0, at / 2),
    })
    raw.worker.write(sent.subarray(at))
    raw.gateway.write(answer.subarray(at / 2))
    t.ok((await raw.atGateway.has(sent.length)).equals(sent))
    t.ok((await raw.atWorker.has(answer.length)).equals(answer))
    raw.stream.destroy()
    await raw.summary()
  }
})

test('sockets that were paused on purpose flow again', async (t) => {
  const [worker, gateway] = await Promise.all([socketPair(t), socketPair(t)])
  worker.ours.pause()
  gateway.ours.pause()
  const [sent, answer] = [up('early'), down('early')]
  worker.peer.write(sent)
  gateway.peer.write(answer)
  const raw = await rawStream(t, { worker: worker.ours, gateway: gateway.ours })
  t.ok((await collect(gateway.peer).has(sent.length)).equals(sent))
  t.ok((await collect(worker.peer).has(answer.length)).equals(answer))
  raw.stream.destroy()
})
