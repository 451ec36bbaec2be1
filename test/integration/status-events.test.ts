/** Event streams of the status are few and bounded, and take nothing from probes, scrapes or drains. */

import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { test, type Test } from 'tap'
import type { AdminPortOptions } from '@openclaw-k8s/auth-sidecar/edge/admin-port.ts'
import { dialFrom, readAll, startAdminRig } from '../kit/admin-rig.ts'
import { EMPTY_STATUS } from '../kit/status-sample.ts'
import { waitUntil } from '../kit/wait.ts'

const GET_EVENTS = 'GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n'
const EVENT = `data: ${JSON.stringify(EMPTY_STATUS)}\n\n`

const setUp = async (t: Test, given: Partial<AdminPortOptions> = {}) => {
  let reads = 0
  const read = async () => {
    reads += 1
    return EMPTY_STATUS
  }
  const rig = await startAdminRig({ status: { read, objection: undefined }, ...given })
  t.teardown(() => rig.close())
  const dial = async (localAddress?: string): Promise<Socket> => {
    const socket = await dialFrom(rig.port, localAddress)
    t.teardown(() => socket.destroy())
    return socket
  }
  /** A stream that has got its first event, and counts the events. */
  const watch = async () => {
    const socket = await dial()
    let text = ''
    socket.on('data', (chunk: Buffer) => void (text += String(chunk)))
    socket.write(GET_EVENTS)
    const events = () => text.split(EVENT).length - 1
    await waitUntil(() => events() > 0 || socket.closed)
    return { socket, events, text: () => text }
  }
  return { ...rig, dial, watch, reads: () => reads }
}

test('a watcher gets the status at once, and then every second', async (t) => {
  const { clock, watch } = await setUp(t)
  const watcher = await watch()
  t.match(watcher.text(), /^HTTP\/1.1 200 OK\r\n[^]*content-type: text\/event-stream\r\n/i)
  for (let n = 2; n <= 4; n += 1) {
    clock.advance(1000)
    await waitUntil(() => watcher.events() === n)
  }
})

test('watchers share each read, and nothing is read or armed while nobody watches', async (t) => {
  const { clock, watch, reads } = await setUp(t)
  const watchers = [await watch(), await watch(), await watch()]
  const before = reads()
  clock.advance(1000)
  await waitUntil(() => watchers.every(({ events }) => events() >= 2))
  t.equal(reads(), before + 1)
  for (const { socket } of watchers) socket.destroy()
  await waitUntil(() => clock.pending === 0)
  clock.advance(5000)
  t.equal(reads(), before + 1)
})

test('a fifth watcher is asked to come back, until one has left', async (t) => {
  const { watch, url, clock } = await setUp(t)
  const watchers = [await watch(), await watch(), await watch(), await watch()]
  const fifth = await fetch(`${url}/events`)
  t.equal(fifth.status, 503)
  t.equal(fifth.headers.get('retry-after'), '10')
  t.match(await fifth.text(), /at most 4/)
  watchers[0]?.socket.destroy()
  await waitUntil(async () => {
    const { status, body } = await fetch(`${url}/events`)
    await body?.cancel()
    return status === 200
  })
  for (const { socket } of watchers) socket.destroy()
  await waitUntil(() => clock.pending === 0)
})

test('a stream is neither idle nor too slow an answer, however long it lasts', async (t) => {
  const { clock, watch, dial, url } = await setUp(t, { requestTimeoutMs: 1000 })
  const watcher = await watch()
  // Another connection runs into Node's own timeout: as much time has passed.
  const silent = await dial()
  silent.write('GET /livez HTTP/1.1\r\n')
  t.match(await readAll(silent), /^HTTP\/1.1 408/)
  clock.advance(60_000)
  t.equal((await fetch(`${url}/livez`)).status, 200)
  t.notOk(watcher.socket.closed)
  clock.advance(1000)
  await waitUntil(() => watcher.events() > 1)
})

test('streams leave room for others of their address, and are not closed to make it', async (t) => {
  const { watch, dial, url, drained } = await setUp(t)
  const watchers = [await watch(), await watch(), await watch(), await watch()]
  for (let n = 0; n < 30; n += 1) await dial()
  t.equal((await fetch(`${url}/livez`)).status, 200)
  const drain = fetch(`${url}/drain`, { method: 'POST', headers: { 'x-auth-sidecar-proof': 'x' } })
  drained.resolve({ streams: 3 })
  t.match(await (await drain).json(), { streams: 3 })
  t.ok(watchers.every(({ socket }) => !socket.closed))
})

test('where connections are few, so are the streams', async (t) => {
  const { watch, url } = await setUp(t, { connectionsMax: 4 })
  const watcher = await watch()
  t.equal((await fetch(`${url}/events`)).status, 503)
  t.equal((await fetch(`${url}/livez`)).status, 200)
  t.notOk(watcher.socket.closed)
})

test('for a reader that takes nothing at most one event waits, and then it is dropped', async (t) => {
  const large = { ...EMPTY_STATUS, version: 'x'.repeat(8 * 1024 * 1024) }
  let reads = 0
  const read = async () => {
    reads += 1
    return large
  }
  let served: Duplex | undefined
  const { clock, dial } = await setUp(t, {
    status: { read, objection: undefined },
    watchPeer: (stream) => void (served = stream),
  })
  const socket = await dial()
  socket.pause().write(GET_EVENTS)
  await waitUntil(() => reads === 1 && clock.pending === 1)
  for (let n = 0; n < 10; n += 1) {
    t.notOk(socket.closed, 'it is given ten seconds')
    await clock.advanceAsync(1000)
  }
  t.equal(reads, 11)
  const waiting = served?.writableLength ?? 0
  t.ok(waiting > 0 && waiting < 1.1 * large.version.length, `${waiting} bytes wait`)
  await clock.advanceAsync(1000)
  const received = readAll(socket.resume())
  t.ok((await received).length < large.version.length)
  await waitUntil(() => clock.pending === 0)
})

test('a stop of the port ends its streams', async (t) => {
  const { watch, close, clock } = await setUp(t)
  const { socket } = await watch()
  const closed = once(socket, 'close')
  await close()
  await closed
  await turn()
  t.equal(clock.pending, 0)
})
