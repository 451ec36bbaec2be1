/** An unproven client holds little, for a short time; no client holds everything. */

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import { rawFrame } from '../kit/raw-frames.ts'
import { rawUpgrade, upgradeLines } from '../kit/raw-upgrade.ts'
import { startRig, type Rig, type RigOptions } from '../kit/rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed } from '../kit/worker-client.ts'

const rigFor = async (t: { teardown: (stop: () => unknown) => unknown }, options: RigOptions) => {
  const rig = await startRig(options)
  t.teardown(() => rig.stop())
  return rig
}

const ask = async (rig: Rig, extra: readonly string[], localAddress = '127.0.0.11') => {
  const answer = await rawUpgrade({ port: rig.port, localAddress, lines: upgradeLines('/', extra) })
  const { error } = JSON.parse(answer.body || '{}') as { error?: { type: string } }
  return { ...answer, code: error?.type }
}

/** An accepted connection that sends nothing. */
const idle = async (rig: Rig, localAddress: string, count: number): Promise<Socket> => {
  const socket = connect({ port: rig.port, host: '127.0.0.1', localAddress })
  socket.on('error', () => {})
  await once(socket, 'connect')
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets') === count)
  return socket
}

test('a connection that never sends its request is cut when the handshake time is up', async (t) => {
  const clock = new FakeClock()
  const rig = await rigFor(t, { clock, set: ['limits.handshakeTimeout=5s'] })
  const silent = await idle(rig, '127.0.0.11', 1)
  const slow = await idle(rig, '127.0.0.11', 2)
  // Slowloris: a head that grows byte by byte does not count as activity.
  let cut = 0
  for (const socket of [silent, slow]) socket.resume().once('close', () => (cut += 1))
  for (const char of 'GET / HTTP/1.1\r\nX: ') {
    slow.write(char)
    await clock.advanceAsync(200)
  }
  await clock.advanceAsync(5000 - 200 * 19 - 1)
  t.equal(cut, 0, 'not before its time')
  await clock.advanceAsync(1)
  await waitUntil(() => cut === 2)
})

test('an admission that hangs on our side ends with the handshake time, as our fault', async (t) => {
  const clock = new FakeClock()
  const rig = await rigFor(t, { clock, set: ['limits.handshakeTimeout=1s'] })
  const pod = rig.createPod()
  rig.api.pauseReviews()
  const answer = ask(rig, [`Authorization: Bearer ${rig.mint({ pod })}`])
  await rig.api.reviewArrived()
  await clock.advanceAsync(1000)
  const { status, code } = await answer
  t.same([status, code], [503, 'admission_timeout'])
  rig.api.releaseReviews()
  t.equal(rig.gateway.handshakes.length, 0)

  const inTime = await rig.connect({ token: rig.mint({ pod }) })
  if (!inTime.ok) throw new Error('refused')
  await clock.advanceAsync(5000)
  t.equal(inTime.socket.readyState, inTime.socket.OPEN, 'an admitted one is not bound by it')
  inTime.socket.terminate()
})

test('one address can have few handshakes under way, and other addresses are not affected', async (t) => {
  const rig = await rigFor(t, { set: ['limits.pendingPerAddress=2'] })
  const pod = rig.createPod('worker-b', '127.0.0.12')
  const first = await idle(rig, '127.0.0.11', 1)
  const second = await idle(rig, '127.0.0.11', 2)
  const refused = await ask(rig, [])
  t.same([refused.status, refused.code], [503, 'too_many_pending'])
  t.match(refused.headers['retry-after'], /^\d+$/)
  const bearer = `Authorization: Bearer ${rig.mint({ pod })}`
  for (let nth = 0; nth < 4; nth += 1) {
    // Admitted workers no longer count; otherwise the third would be one too many.
    const admitted = await ask(rig, [bearer], '127.0.0.12')
    t.equal(admitted.status, 101)
    t.teardown(() => admitted.socket.destroy())
  }
  first.destroy()
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets') === 1)
  t.not((await ask(rig, ['Authorization: none'])).code, 'too_many_pending', 'a place came free')
  second.destroy()
})

test('all addresses together can have few handshakes under way', async (t) => {
  const rig = await rigFor(t, { set: ['limits.pending=3'] })
  const sockets: Socket[] = []
  for (const nth of [1, 2, 3]) sockets.push(await idle(rig, `127.0.0.${20 + nth}`, nth))
  const refused = await ask(rig, [], '127.0.0.30')
  t.same([refused.status, refused.code], [503, 'too_many_pending'])
  for (const socket of sockets) socket.destroy()
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets') === 0)
  t.not((await ask(rig, ['Authorization: none'], '127.0.0.30')).code, 'too_many_pending')
})

test('strangers of few addresses cannot keep a worker out, however many places they take', async (t) => {
  const rig = await rigFor(t, { set: ['limits.pending=6', 'limits.pendingPerAddress=3'] })
  const strangers: Socket[] = []
  for (const nth of [1, 2, 3, 4, 5, 6]) {
    strangers.push(await idle(rig, `127.0.0.${nth <= 3 ? 30 : 31}`, nth))
  }
  for (const socket of strangers) socket.resume()
  const cut = once(strangers[0]!, 'close')
  const pod = rig.createPod()
  const worker = await rig.connect({ token: rig.mint({ pod }) })
  t.ok(worker.ok, 'all places were taken')
  await cut
  t.strictSame(
    strangers.map(({ readyState }) => readyState !== 'closed'),
    [false, true, true, true, true, true],
    'one stranger has lost his',
  )
  for (const socket of strangers) socket.destroy()
})

test('a worker with a token signed by the cluster takes no place from those without one', async (t) => {
  const clock = new FakeClock()
  const rig = await rigFor(t, {
    clock,
    set: ['limits.pending=2', 'limits.streams=4', 'limits.handshakeTimeout=2s'],
  })
  rig.api.pauseReviews()
  const waiting: ReturnType<typeof ask>[] = []
  for (const nth of [1, 2, 3, 4]) {
    const address = `127.0.0.${20 + nth}`
    const pod = rig.createPod(`worker-${nth}`, address)
    waiting.push(ask(rig, [`Authorization: Bearer ${rig.mint({ pod })}`], address))
    await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_streams') === nth)
  }
  const stranger = await idle(rig, '127.0.0.30', 5)
  const another = await idle(rig, '127.0.0.31', 6)
  t.equal((await ask(rig, [], '127.0.0.32')).code, 'too_many_pending', 'strangers still have few')
  stranger.destroy()
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets') === 5)
  const fifth = rig.createPod('worker-5', '127.0.0.25')
  const bearer = `Authorization: Bearer ${rig.mint({ pod: fifth })}`
  const refused = await ask(rig, [bearer], '127.0.0.25')
  t.equal(refused.code, 'too_many_streams', 'but all that wait are counted as streams')

  await clock.advanceAsync(2000)
  for (const answer of waiting)
    t.equal((await answer).code, 'admission_timeout', 'and none for long')
  another.destroy()
  rig.api.releaseReviews()
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets') === 0)
  const late = await idle(rig, '127.0.0.30', 1)
  const last = await idle(rig, '127.0.0.31', 2)
  t.equal((await ask(rig, [], '127.0.0.32')).code, 'too_many_pending', 'no place was counted twice')
  late.destroy()
  last.destroy()
})

test('an address that fails too often waits, alone, and only for a while', async (t) => {
  const clock = new FakeClock()
  const rig = await rigFor(t, { clock, set: ['limits.failuresPerAddress=1/s'] })
  const pod = rig.createPod()
  const other = rig.createPod('worker-b', '127.0.0.12')
  const good = `Authorization: Bearer ${rig.mint({ pod })}`
  for (let nth = 0; nth < 5; nth += 1) {
    t.equal((await ask(rig, ['Authorization: Bearer bad'])).status, 401, `within the burst: ${nth}`)
  }
  const limited = await ask(rig, ['Authorization: Bearer bad'])
  t.same([limited.status, limited.code], [429, 'rate_limited'])
  t.match(limited.headers['retry-after'], /^\d+$/)
  t.equal((await ask(rig, [good])).status, 429, 'a good token too: guessing must not pay')
  const neighbor = await ask(
    rig,
    [`Authorization: Bearer ${rig.mint({ pod: other })}`],
    '127.0.0.12',
  )
  t.equal(neighbor.status, 101, 'another address is not affected')
  neighbor.socket.destroy()

  await clock.advanceAsync(1000)
  const again = await ask(rig, [good])
  t.equal(again.status, 101, 'a second later')
  again.socket.destroy()
  t.equal((await ask(rig, ['Authorization: Bearer bad'])).status, 401, 'success took nothing')
  t.equal((await ask(rig, ['Authorization: Bearer bad'])).status, 429)
})

/** The upgrade is accepted, the credential is awaited, and then the worker leaves. */
const leave = async (rig: Rig, localAddress: string) => {
  const { socket, status } = await ask(rig, [], localAddress)
  socket.destroy()
  await once(socket, 'close')
  return status
}

const LEFT = 'openclaw_k8s_upgrades_refused_total{code="worker_gone"}'

test('workers that leave during their handshakes count as failures, and other workers are not affected', async (t) => {
  const clock = new FakeClock()
  const rig = await rigFor(t, { clock, set: ['limits.failuresPerAddress=1/s'] })
  const good = `Authorization: Bearer ${rig.mint({ pod: rig.createPod() })}`
  for (let nth = 1; nth <= 5; nth += 1) {
    t.equal(await leave(rig, '127.0.0.66'), 101)
    await waitUntil(async () => (await rig.metrics()).get(LEFT) === nth)
  }
  t.equal((await ask(rig, [], '127.0.0.66')).code, 'rate_limited')
  const neighbor = await ask(rig, [good])
  t.equal(neighbor.status, 101)
  neighbor.socket.destroy()
  await clock.advanceAsync(1000)
  t.equal(await leave(rig, '127.0.0.66'), 101, 'only for a while')
})

test('half a request costs its address an attempt, a connection without a request costs none', async (t) => {
  const rig = await rigFor(t, { clock: new FakeClock(), set: ['limits.failuresPerAddress=1/s'] })
  const send = async (text: string) => {
    const socket = connect({ port: rig.port, host: '127.0.0.1', localAddress: '127.0.0.66' })
    await once(socket, 'connect')
    socket.end(text)
    await once(socket.resume(), 'close')
  }
  for (let nth = 0; nth < 10; nth += 1) await send('')
  t.equal((await rig.metrics()).get(LEFT), 0)
  for (let nth = 0; nth < 5; nth += 1) await send('GET / HTTP/1.1')
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets') === 0)
  t.equal((await ask(rig, [], '127.0.0.66')).code, 'rate_limited')
})

test('a request that is not an upgrade is not even read once its address has failed too often', async (t) => {
  const rig = await rigFor(t, { clock: new FakeClock(), set: ['limits.failuresPerAddress=1/s'] })
  const get = async () => {
    const bytes = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
    return (await rawUpgrade({ port: rig.port, localAddress: '127.0.0.66', bytes })).status
  }
  for (let nth = 0; nth < 5; nth += 1) t.equal(await get(), 426)
  for (let nth = 0; nth < 3; nth += 1) t.equal(await get(), 429)
  const refused = (await rig.metrics()).get(
    'openclaw_k8s_upgrades_refused_total{code="rate_limited"}',
  )
  t.equal(refused, 3, 'each is counted once')
})

test('a pod over its stream limit is asked to wait, and pods that share its address are not', async (t) => {
  const clock = new FakeClock()
  const rig = await rigFor(t, {
    clock,
    set: ['limits.failuresPerAddress=1/s', 'limits.streamsPerPod=1'],
  })
  const token = rig.mint({ pod: rig.createPod() })
  const neighbor = rig.mint({ pod: rig.createPod('worker-b', '127.0.0.11') })
  const first = await rig.connect({ token })
  const codes: (string | undefined)[] = []
  for (let nth = 0; nth < 8; nth += 1) {
    codes.push((await ask(rig, [`Authorization: Bearer ${token}`])).code)
  }
  t.same(codes, [
    ...Array.from({ length: 5 }, () => 'too_many_streams_of_pod'),
    ...Array.from({ length: 3 }, () => 'rate_limited'),
  ])
  const admitted = await rig.connect({ token: neighbor })
  t.equal(admitted.ok, true)
  await clock.advanceAsync(1000)
  t.same(
    rig.audit
      .filter(({ event }) => event === 'k8s-auth-failed')
      .map(({ code, count, displayName }) => [code, count, displayName]),
    [
      ['too_many_streams_of_pod', 5, 'worker-a'],
      ['rate_limited', 3, 'worker-a'],
    ],
    'eight refusals are two lines',
  )
  for (const worker of [first, admitted]) if (worker.ok) worker.socket.terminate()
})

test('a pod that comes and goes is asked to wait too', async (t) => {
  const clock = new FakeClock()
  const rig = await rigFor(t, { clock, set: ['limits.failuresPerAddress=1/s'] })
  const bearer = `Authorization: Bearer ${rig.mint({ pod: rig.createPod() })}`
  const come = async () => {
    const { socket, status, code } = await ask(rig, [bearer])
    socket.destroy()
    await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_streams') === 0)
    return status === 101 ? 'ok' : code
  }
  const codes: (string | undefined)[] = []
  for (let nth = 0; nth < 7; nth += 1) codes.push(await come())
  t.same(codes, ['ok', 'ok', 'ok', 'ok', 'ok', 'rate_limited', 'rate_limited'])
  const { socket } = await ask(rig, [], '127.0.0.11')
  t.equal(socket.destroyed, false, 'its address is not charged for it')
  socket.destroy()
  await clock.advanceAsync(10_000)
  t.equal(await come(), 'ok')
})

test('a herd behind one address costs that address nothing, however many workers come at once', async (t) => {
  const rig = await rigFor(t, {
    clock: new FakeClock(),
    set: ['limits.failuresPerAddress=1/s', 'limits.pendingPerAddress=100'],
  })
  const tokens = Array.from({ length: 40 }, (_, nth) =>
    rig.mint({ pod: rig.createPod(`worker-${nth}`, '127.0.0.11') }),
  )
  const herd = () => Promise.all(tokens.map((token) => rig.connect({ token })))
  rig.gateway.setBehavior('refuse')
  for (const outcome of await herd()) t.equal(!outcome.ok && outcome.status, 502)
  rig.gateway.setBehavior('accept')
  for (const outcome of await herd()) {
    t.equal(outcome.ok, true)
    if (outcome.ok) outcome.socket.terminate()
  }
})

test('faults of others do not count as failures of the worker', async (t) => {
  const rig = await rigFor(t, { clock: new FakeClock(), set: ['limits.failuresPerAddress=1/s'] })
  const bearer = `Authorization: Bearer ${rig.mint({ pod: rig.createPod() })}`
  rig.gateway.setBehavior('refuse')
  for (let nth = 0; nth < 8; nth += 1) t.equal((await ask(rig, [bearer])).status, 502)
  rig.gateway.setBehavior('accept')
  const admitted = await ask(rig, [bearer])
  t.equal(admitted.status, 101)
  admitted.socket.destroy()
})

test('a pod can have streams up to its limit, and gets a place back when one ends', async (t) => {
  const rig = await rigFor(t, { set: ['limits.streamsPerPod=2'] })
  const token = rig.mint({ pod: rig.createPod() })
  const other = rig.mint({ pod: rig.createPod('worker-b', '127.0.0.12') })
  const first = await rig.connect({ token })
  const second = await rig.connect({ token })
  const third = await ask(rig, [`Authorization: Bearer ${token}`])
  t.same([third.status, third.code], [503, 'too_many_streams_of_pod'])
  t.match(third.headers['retry-after'], /^\d+$/)
  const neighbor = await rig.connect({ token: other, localAddress: '127.0.0.12' })
  if (!first.ok || !second.ok || !neighbor.ok) throw new Error('refused')
  first.socket.close()
  await closed(first.socket)
  await waitUntil(() => rig.audit.some(({ event }) => event === 'k8s-session-closed'))
  const fourth = await rig.connect({ token })
  t.ok(fourth.ok)
  for (const worker of [second, neighbor, fourth]) if (worker.ok) worker.socket.terminate()
})

test('all pods together can have streams up to the limit, including those under way', async (t) => {
  const rig = await rigFor(t, { set: ['limits.streams=2'] })
  const token = rig.mint({ pod: rig.createPod() })
  const other = rig.mint({ pod: rig.createPod('worker-b', '127.0.0.12') })
  const first = await rig.connect({ token })
  if (!first.ok) throw new Error('refused')
  rig.api.pauseReviews()
  const pending = rig.connect({ token: other, localAddress: '127.0.0.12' })
  await rig.api.reviewArrived()
  const third = await ask(rig, [`Authorization: Bearer ${token}`])
  t.same([third.status, third.code], [503, 'too_many_streams'])
  rig.api.releaseReviews()
  const second = await pending
  t.ok(second.ok)
  first.socket.terminate()
  if (second.ok) second.socket.terminate()
})

test('a close before any credential frees the socket, whatever comes after it', async (t) => {
  const clock = new FakeClock()
  const rig = await rigFor(t, { clock, set: ['limits.pendingPerAddress=1'] })
  const { socket } = await rawUpgrade({
    port: rig.port,
    localAddress: '127.0.0.11',
    lines: upgradeLines('/'),
  })
  socket.write(rawFrame({ first: 0x88 }))
  await once(socket.resume(), 'data')
  socket.end(Buffer.from([0]))
  await clock.advanceAsync(3000)
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_pending_sockets') === 0)
  t.pass('the next one of this address may come')
})

test('a connection that ends without a request does not count against its address', async (t) => {
  const rig = await rigFor(t, {})
  for (let n = 0; n < 5; n += 1) {
    const socket = connect({ host: '127.0.0.1', port: rig.port, localAddress: '127.0.0.11' })
    await once(socket, 'connect')
    socket.resetAndDestroy()
  }
  const pod = rig.createPod()
  const admitted = await rig.connect({ token: rig.mint({ pod }) })
  t.equal(admitted.ok, true)
  if (admitted.ok) admitted.socket.terminate()
  const refused = await rig.metrics()
  t.equal(refused.get('openclaw_k8s_upgrades_refused_total{code="upgrade_malformed"}'), 0)
})
