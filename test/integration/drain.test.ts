/** A sidecar that stops sends its workers away one after the other, and lets nobody else in. */

import { test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import { closeOf, rawFrame, readFrames } from '../kit/raw-frames.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed, nextMessage } from '../kit/worker-client.ts'

const drainingRig = async (t: { teardown: (stop: () => unknown) => unknown }) => {
  const clock = new FakeClock()
  const rig = await startRig({ clock, set: ['drain.window=20s', 'limits.streamsPerPod=100'] })
  t.teardown(() => rig.stop())
  const token = rig.mint({ pod: rig.createPod() })
  const open = async () => {
    const worker = await rig.connect({ token })
    if (!worker.ok) throw new Error('refused')
    return worker.socket
  }
  return { clock, rig, token, open }
}

test('streams close with 1012, spread over the window, and work until their turn', async (t) => {
  const { clock, rig, open } = await drainingRig(t)
  const sockets = [await open(), await open(), await open(), await open()]
  const gateways = [...rig.gateway.connections]
  const left: number[] = []
  sockets.forEach((socket, nth) => socket.once('close', () => left.push(nth)))
  let isDrained = false
  const drained = rig.sidecar.drain().then(() => (isDrained = true))

  for (const [nth, socket] of sockets.entries()) {
    await clock.advanceAsync(nth === 0 ? 0 : 1)
    t.same(await closed(socket), { code: 1012, reason: 'draining' })
    t.same(await gateways[nth]?.closed, { code: 1012, reason: 'draining' }, 'the gateway as well')
    for (const later of sockets.slice(nth + 1)) {
      later.send('still here')
      t.equal((await nextMessage(later)).text, 'still here')
    }
    t.same(left, [0, 1, 2, 3].slice(0, nth + 1), 'none before its time')
    if (nth < 3) {
      t.notOk(isDrained)
      await clock.advanceAsync(4999)
      t.equal(left.length, nth + 1)
    }
  }
  await drained
  await t.rejects(fetch(`${rig.adminUrl}/livez`), 'then both ports are closed')
  await t.rejects(rawUpgrade({ port: rig.port }), { code: 'ECONNREFUSED' })
  const closes = rig.audit.filter(({ event }) => event === 'k8s-session-closed')
  t.same(
    closes.map(({ code }) => code),
    ['draining', 'draining', 'draining', 'draining'],
  )
})

test('while streams are left, new workers get 503 and the sidecar is not ready but alive', async (t) => {
  const { clock, rig, token, open } = await drainingRig(t)
  await open()
  const last = await open()
  t.equal((await fetch(`${rig.adminUrl}/readyz`)).status, 200)
  const drained = rig.sidecar.drain()
  await clock.advanceAsync(0)
  const answer = await rig.connect({ token })
  t.match(answer, { ok: false, status: 503, body: { error: { type: 'draining' } } })
  if (!answer.ok) t.match(answer.headers['retry-after'], /^\d+$/)
  const bare = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines(),
  })
  t.equal(bare.status, 503, 'nobody is asked for a first frame any more')
  const ready = await fetch(`${rig.adminUrl}/readyz`)
  t.equal(ready.status, 503)
  t.match(await ready.text(), /\[-\] serving: draining/)
  t.equal((await fetch(`${rig.adminUrl}/livez`)).status, 200)
  await clock.advanceAsync(10_000)
  await closed(last)
  await drained
})

test('a worker that was waiting when the drain began is no longer let in', async (t) => {
  const { clock, rig, token, open } = await drainingRig(t)
  await open()
  const last = await open()
  const { socket } = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines(),
  })
  const drained = rig.sidecar.drain()
  await clock.advanceAsync(0)
  const frame = { type: 'connect.request', authMode: 'k8s-sa', saToken: token, role: 'node' }
  socket.write(rawFrame({ payload: JSON.stringify(frame) }))
  t.same(closeOf(await readFrames(socket)), { code: 1012, reason: 'draining' })
  t.equal(rig.gateway.handshakes.length, 2)
  await clock.advanceAsync(10_000)
  await closed(last)
  await drained
})

test('an admission under way is refused properly, not cut off, when its turn comes', async (t) => {
  const { clock, rig, token } = await drainingRig(t)
  rig.api.pauseReviews()
  const pending = rig.connect({ token })
  await rig.api.reviewArrived()
  const drained = rig.sidecar.drain()
  await clock.advanceAsync(0)
  t.match(await pending, { ok: false, status: 503, body: { error: { type: 'draining' } } })
  await drained
  rig.api.releaseReviews()
  t.equal(rig.gateway.handshakes.length, 0)
})

test('a worker that does not answer its close cannot delay the drain', async (t) => {
  const { clock, rig, token } = await drainingRig(t)
  const { socket } = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines('/', [`Authorization: Bearer ${token}`]),
  })
  await rig.gateway.waitForConnection(1)
  rig.gateway.connections.forEach((connection) => connection.pause())
  const drained = rig.sidecar.drain()
  await clock.advanceAsync(0)
  socket.pause()
  await clock.advanceAsync(20_000 + 5000)
  await drained
  await waitUntil(() => rig.audit.some(({ event }) => event === 'k8s-session-closed'))
  socket.destroy()
})

test('a drain without streams ends at once', async (t) => {
  const { rig } = await drainingRig(t)
  await rig.sidecar.drain()
  await t.rejects(rawUpgrade({ port: rig.port }), { code: 'ECONNREFUSED' })
})
