/** The HTTP server under the worker port keeps nothing of a request once it is upgraded. */

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { test } from 'tap'
import { createHttpServer } from '@openclaw-k8s/auth-sidecar/edge/http-server.ts'
import { systemClock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** The first collection only begins to free the memory of buffers. */
const usedBytes = (): number => {
  collect()
  collect()
  return process.memoryUsage().arrayBuffers
}

const REQUEST =
  'GET / HTTP/1.1\r\nHost: sidecar\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
const STREAMS = 64

test("a stream keeps none of Node's pool after its upgrade", async (t) => {
  const http = createHttpServer({
    tls: undefined,
    clock: systemClock,
    random: () => 0,
    headTimeoutMs: 60_000,
    onRefused: (code) => t.fail(`refused: ${code}`),
    watchPeer() {},
    onAcceptError: (error) => t.fail(error.message),
    onTlsFailure: (error) => t.fail(error.message),
  })
  const streams: Socket[] = []
  const workers: Socket[] = []
  t.teardown(async () => {
    for (const socket of [...streams, ...workers]) socket.destroy()
    await http.close()
  })
  let received = () => {}
  http.onUpgrade(({ socket }) => {
    streams.push(socket)
    received()
  })
  const [, port = ''] = /:(\d+)$/.exec(await http.listen('127.0.0.1', 0)) ?? []

  const before = usedBytes()
  for (let n = 0; n < STREAMS; n += 1) {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    received = () => resolve(undefined)
    const worker = connect(Number(port), '127.0.0.1')
    workers.push(worker)
    await once(worker, 'connect')
    worker.write(REQUEST)
    await promise
    // The next request meets another slab of the pool.
    for (let half = 0; half < 2; half += 1) Buffer.allocUnsafe(Buffer.poolSize / 2 - 1)
  }
  const kept = usedBytes() - before

  t.equal(streams.length, STREAMS)
  t.ok(kept < (STREAMS / 4) * Buffer.poolSize, `${STREAMS} streams keep ${kept} bytes`)
})
