/** The process survives an error of a peer's socket without a listener, and nothing else. */

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test, type Test } from 'tap'
import { startServeRig } from '../kit/serve-rig.ts'
import { waitForProcess } from '../kit/wait.ts'
import { closed, nextMessage } from '../kit/worker-client.ts'

const WITHIN_MS = 10_000

/** Removes the error listeners, as a bug of ours or of Node would. */
const DEAF = `data:text/javascript,${encodeURIComponent(`
  import { subscribe } from 'node:diagnostics_channel'
  subscribe('net.server.socket', ({ socket }) => {
    if (socket.remoteAddress !== '127.0.0.13') return
    setImmediate(() => socket.removeAllListeners('error'))
  })
`)}`

/** A bug of another kind, at the first connection from a special address. */
const THROWS = `data:text/javascript,${encodeURIComponent(`
  import { subscribe } from 'node:diagnostics_channel'
  subscribe('net.server.socket', ({ socket }) => {
    if (socket.remoteAddress === '127.0.0.12') setImmediate(() => { throw new Error('a bug') })
  })
`)}`

const rigFor = async (t: Test, preloaded: string) => {
  const rig = await startServeRig({
    workers: 0,
    admin: 0,
    process: { env: { NODE_OPTIONS: `--import=${preloaded}` } },
  })
  t.teardown(() => rig.close())
  const read = async (name: string) => {
    const [line] = (await rig.scrape()).filter((each) => each.startsWith(`openclaw_k8s_${name} `))
    return Number(line?.split(' ')[1] ?? 0)
  }
  return {
    rig,
    uncaught: () => read('uncaught_peer_errors_total'),
    pending: () => read('pending_sockets'),
  }
}

const open = async (url: string, localAddress: string): Promise<Socket> => {
  const { hostname: host, port } = new URL(url)
  const socket = connect({ host, port: Number(port), localAddress })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

const openStream = async (rig: Awaited<ReturnType<typeof rigFor>>['rig']) => {
  const pod = rig.createPod('worker-a', '127.0.0.11')
  const outcome = await rig.connect('127.0.0.11', rig.mint({ pod }))
  if (!outcome.ok) throw new Error('refused')
  return outcome.socket
}

test('ten socket errors without a listener are survived and counted, the eleventh exits 70', async (t) => {
  const { rig, uncaught, pending } = await rigFor(t, DEAF)
  const stream = await openStream(rig)
  const resetUnheard = async () => {
    const socket = await open(rig.url, '127.0.0.13')
    await waitForProcess('the accept', WITHIN_MS, async () => (await pending()) === 1)
    // One more answer of that process, so that the reset finds the listeners gone.
    await pending()
    socket.resetAndDestroy()
  }
  for (let n = 1; n <= 10; n += 1) {
    await resetUnheard()
    await waitForProcess('the count', WITHIN_MS, async () => (await uncaught()) === n)
  }
  stream.send('still here')
  t.equal((await nextMessage(stream)).text, 'still here')
  t.equal(rig.sidecar.stderr.records.filter(({ level }) => level === 'error').length, 10)

  await resetUnheard()
  t.match(await closed(stream), { code: 1012, reason: 'draining' })
  t.strictSame(await rig.sidecar.exited, { code: 70, signal: null })
})

test('an exception of ours drains and exits 70, as always', async (t) => {
  const { rig, uncaught } = await rigFor(t, THROWS)
  const stream = await openStream(rig)
  t.equal(await uncaught(), 0)
  ;(await open(rig.url, '127.0.0.12')).unref()
  t.match(await closed(stream), { code: 1012, reason: 'draining' })
  t.strictSame(await rig.sidecar.exited, { code: 70, signal: null })
  t.match(rig.sidecar.stderr.text, /a bug was found: draining, then exiting/)
})
