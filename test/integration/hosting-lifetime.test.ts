/** What ends hosted streams and transfers: all that ends their pod's own stream, and its long absence. */

import { once } from 'node:events'
import type { Socket } from 'node:net'
import { test } from 'tap'
import { loadConfig } from '@openclaw-k8s/auth-sidecar/config/load.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import {
  allowList,
  answer,
  BUNDLE,
  getLines,
  POD_ADDRESS,
  postHead,
  startHostingRig,
  WORKER,
  type HostingRig,
  type HostingRigOptions,
} from '../kit/hosting-rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { closed, openWorker } from '../kit/worker-client.ts'

type Teardown = { readonly teardown: (stop: () => unknown) => unknown }

/** A node that hosts sessions, under a clock that stands still. */
const hostFor = async (t: Teardown, options: HostingRigOptions = {}) => {
  const clock = new FakeClock()
  const rig = await startHostingRig({
    clock,
    ...options,
    set: ['limits.idlePing=1h', ...(options.set ?? [])],
  })
  t.teardown(rig.stop)
  const node = await rig.startNode()
  return { ...rig, clock, node }
}

const openHosted = ({ url }: HostingRig) =>
  openWorker({ url: `${url}${WORKER}`, carrier: 'none', localAddress: POD_ADDRESS })

const streams = async (rig: HostingRig) => (await rig.metrics()).get('openclaw_k8s_streams')

/** An upload and a download, each in the middle of its body; they resolve when they are over. */
const openTransfers = async (rig: HostingRig) => {
  const upload = await rig.open()
  upload.write(`${postHead(1_000_000)}${'a'.repeat(1000)}`)
  const download = await rig.open()
  download.write(`${getLines(BUNDLE).join('\r\n')}\r\n\r\n`)
  await once(download, 'data')
  download.resume()
  await waitUntil(() => rig.served.length === 2)
  return { upload, over: Promise.all([upload, download].map(endOf)) }
}

const endOf = async (socket: Socket) => {
  socket.resume()
  await once(socket, 'close')
}

/** Answers a GET with half of what it announces. */
const halfAnswers: HostingRigOptions['serve'] = ({ method }, response) => {
  if (method === 'POST') return
  response.writeHead(200, { 'Content-Length': 1000 })
  response.write('a'.repeat(500))
}

const reload = (rig: HostingRig, ...set: readonly string[]) =>
  rig.sidecar.reload(() => loadConfig({ env: {}, flags: set, readFile: () => '' }))

const allowCommands = (rig: HostingRig, ...commands: readonly string[]) =>
  reload(
    rig,
    'gateway.sessionHosting=true',
    allowList(true).replace('}]', `, allowedCommands: [${commands.join(', ')}]}]`),
  )

const ENDS: Readonly<Record<string, (rig: HostingRig) => void>> = {
  pod_deleted: ({ api }) => api.deletePod('openclaw', 'worker-a'),
  service_account_deleted: ({ api }) => api.deleteServiceAccount('openclaw', 'openclaw-worker'),
  pod_not_running: ({ api }) =>
    void api.patchPod('openclaw', 'worker-a', { status: { phase: 'Failed' } }),
  source_address_mismatch: ({ api }) => {
    const status = { podIP: '127.0.0.21', podIPs: [{ ip: '127.0.0.21' }] }
    api.patchPod('openclaw', 'worker-a', { status })
  },
  trust_disabled: (rig) =>
    reload(rig, 'gateway.sessionHosting=true', allowList(true), 'k8sTrust.enabled=false'),
  session_hosting_not_allowed: (rig) =>
    reload(rig, 'gateway.sessionHosting=true', allowList(false)),
  policy_changed: (rig) => allowCommands(rig, 'system.which'),
}

for (const [code, end] of Object.entries(ENDS)) {
  test(`${code} ends hosted streams and transfers under way at once`, async (t) => {
    const rig = await hostFor(t, { serve: halfAnswers })
    const hosted = await openHosted(rig)
    const { over } = await openTransfers(rig)
    t.equal(await streams(rig), 4)
    end(rig)
    t.equal((await closed(hosted)).reason, code)
    // A peer that does not answer its close frame is cut off within the second.
    await rig.clock.advanceAsync(900)
    await over
    await waitUntil(() => rig.served.every(({ request }) => request.destroyed))
    const isOwnKept = code === 'session_hosting_not_allowed'
    await waitUntil(async () => (await streams(rig)) === (isOwnKept ? 1 : 0))
    const ends = rig.audit.filter(({ event, route }) => event === 'k8s-session-closed' && route)
    t.strictSame(
      ends.map((line) => line['code']),
      [code, code, code],
    )
    t.equal(rig.clock.monotonic() <= 1000, true)
  })
}

test('a terminating pod finishes its turns for as long as its own stream lives, and no longer', async (t) => {
  const rig = await hostFor(t, { set: ['k8sTrust.terminationGrace=5s'] })
  const hosted = await openHosted(rig)
  rig.api.patchPod('openclaw', 'worker-a', {
    metadata: { deletionTimestamp: '2026-11-23T12:00:00Z', deletionGracePeriodSeconds: 30 },
  })
  for (let n = 0; n < 10; n += 1) t.equal((await rig.get()).status, 200)
  await rig.clock.advanceAsync(4000)
  t.equal((await rig.get()).status, 200)
  t.equal(hosted.readyState, hosted.OPEN)
  await rig.clock.advanceAsync(2000)
  t.equal((await closed(hosted)).reason, 'pod_terminating')
  t.equal((await rig.get()).status, 503, 'without its own stream')
})

test('when a pod’s own stream ends by itself, hosted ones live for two minutes and no new one opens', async (t) => {
  const rig = await hostFor(t)
  const hosted = await openHosted(rig)
  rig.node.end()
  await waitUntil(async () => (await streams(rig)) === 1)
  t.equal((await rig.get()).code, 'session_hosting_no_stream')
  await rig.clock.advanceAsync(119_000)
  t.equal(hosted.readyState, hosted.OPEN)
  await rig.clock.advanceAsync(1000)
  t.equal((await closed(hosted)).reason, 'session_hosting_no_stream')
})

test('a node that comes back within two minutes keeps its hosted streams, and the time starts again', async (t) => {
  const rig = await hostFor(t)
  const hosted = await openHosted(rig)
  const reconnect = async () => {
    const node = await rig.openNode({ auth: { token: rig.mint({ pod: rig.node.pod }) } })
    t.equal((await node.connect())?.ok, true)
    return node
  }
  rig.node.end()
  await waitUntil(async () => (await streams(rig)) === 1)
  await rig.clock.advanceAsync(100_000)
  const second = await reconnect()
  t.equal((await rig.get()).status, 200)
  second.end()
  await waitUntil(async () => (await streams(rig)) === 1)
  await rig.clock.advanceAsync(100_000)
  t.equal(hosted.readyState, hosted.OPEN, 'the first two minutes are over, not the second')
  const third = await reconnect()
  await rig.clock.advanceAsync(60_000)
  t.equal(hosted.readyState, hosted.OPEN)
  // A newer own stream displaces the older one: no verdict on the pod.
  await reconnect()
  await third.closed
  t.equal(hosted.readyState, hosted.OPEN)
  hosted.close()
  await closed(hosted)
})

test('a pod that is deleted while its own stream is away loses its hosted streams at once', async (t) => {
  const rig = await hostFor(t)
  const hosted = await openHosted(rig)
  rig.node.end()
  await waitUntil(async () => (await streams(rig)) === 1)
  rig.api.deletePod('openclaw', 'worker-a')
  t.equal((await closed(hosted)).reason, 'pod_deleted')
})

test('while its own stream is away, a policy that allows less than it offered ends hosted streams', async (t) => {
  const rig = await hostFor(t, { serve: halfAnswers })
  const hosted = await openHosted(rig)
  const { over } = await openTransfers(rig)
  rig.node.end()
  await waitUntil(async () => (await streams(rig)) === 3)
  allowCommands(rig, 'system.*', 'file.*')
  t.equal(hosted.readyState, hosted.OPEN, 'fewer commands, and still all that it offered')
  allowCommands(rig, 'system.which')
  t.equal((await closed(hosted)).reason, 'policy_changed')
  await rig.clock.advanceAsync(900)
  await over
  t.equal(rig.clock.monotonic() <= 1000, true)
})

test('a revocation during an admission lets nothing through', async (t) => {
  const rig = await hostFor(t)
  rig.api.pauseReviews()
  const token = rig.mint({ pod: rig.node.pod })
  const asked = rig.post('body', [`X-OpenClaw-SA-Token: ${token}`])
  await rig.api.reviewArrived()
  rig.api.deletePod('openclaw', 'worker-a')
  const { status, code } = await asked
  t.equal(status, 403)
  t.match(code, /^pod_(deleted|terminating)$/)
  rig.api.releaseReviews()
  t.equal(rig.served.length, 0)
})

test('behind a mute watch an address proves a pod only with a live answer', async (t) => {
  const rig = await hostFor(t)
  rig.api.blackholeWatches()
  await rig.clock.advanceAsync(2001)
  const gets = rig.api.counts.podGets
  t.equal((await rig.get()).status, 200)
  t.equal(rig.api.counts.podGets, gets + 1)
  rig.api.deletePod('openclaw', 'worker-a')
  await rig.clock.advanceAsync(2001)
  const { status, code } = await rig.get()
  t.strictSame([status, code], [403, 'pod_not_found'])
  t.equal(rig.served.length, 1)
})

test('a worker that stalls in a body is cut after its idle time, a gateway that thinks is not', async (t) => {
  let respond = () => {}
  const rig = await hostFor(t, {
    set: ['limits.idlePing=20s'],
    serve: async ({ body }, response) => {
      const { isWhole } = await body
      if (isWhole) respond = () => answer(response, 200, '{}')
    },
  })
  const slow = await rig.open()
  slow.write(`${postHead(100)}abc`)
  await waitUntil(() => rig.served.length === 1)
  const patient = rig.post('the whole body')
  await waitUntil(() => rig.served.length === 2)
  let text = ''
  slow.on('data', (chunk: Buffer) => (text += chunk.toString()))
  const ended = once(slow, 'end')
  for (let n = 0; n < 100; n += 1) await rig.clock.advanceAsync(1000)
  await ended
  t.match(text, /^HTTP\/1\.1 408 .*idle_timeout/s)
  await waitUntil(() => rig.served.length === 2)
  respond()
  t.equal((await patient).status, 200)
})

test('a transfer has ten minutes, and none longer', async (t) => {
  const rig = await hostFor(t, { serve: () => {} })
  const asked = rig.get()
  await waitUntil(() => rig.served.length === 1)
  await rig.clock.advanceAsync(599_999)
  t.equal(rig.served[0]?.request.socket.destroyed, false)
  await rig.clock.advanceAsync(1)
  const { status, code } = await asked
  t.strictSame([status, code], [408, 'transfer_timeout'])
})

test('a body that is read before its refusal has to keep coming', async (t) => {
  const rig = await hostFor(t, { allow: false })
  const socket = await rig.open()
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
  socket.write(`${postHead(100)}abc`)
  const ended = once(socket, 'end')
  await waitUntil(async () => (await streams(rig)) === 2)
  await rig.clock.advanceAsync(19_999)
  t.equal(text, '')
  await rig.clock.advanceAsync(20_001)
  await ended
  t.match(text, /^HTTP\/1\.1 403 .*session_hosting_not_allowed/s)
})

test('hosted streams of one pod are few, and keep neither the node nor another pod out', async (t) => {
  const rig = await hostFor(t, {
    set: ['limits.hostedStreamsPerPod=2', 'limits.pendingPerAddress=2'],
  })
  const hosted = [await openHosted(rig), await openHosted(rig)]
  const { status, code } = await rig.get()
  t.strictSame([status, code], [503, 'too_many_streams_of_pod'])
  const token = rig.mint({ pod: rig.node.pod })
  const node = await rig.openNode({ auth: { token } })
  t.equal((await node.connect())?.ok, true)
  await rig.startNode('worker-b', '127.0.0.12')
  t.equal((await rig.get(BUNDLE, [], { localAddress: '127.0.0.12' })).status, 200)
  t.equal((await rig.metrics()).get('openclaw_k8s_hosted_streams_active'), 2)
  t.equal((await rig.metrics()).get('openclaw_k8s_sessions_active{namespace="openclaw"}'), 2)
  for (const socket of hosted) socket.terminate()
})

test('a drain lets a transfer end within its window', async (t) => {
  let respond = () => {}
  const rig = await hostFor(t, {
    set: ['drain.window=10s'],
    serve: (_, response) => {
      respond = () => answer(response, 200, '{}')
    },
  })
  const hosted = await openHosted(rig)
  const asked = rig.get()
  await waitUntil(() => rig.served.length === 1)
  const drained = rig.sidecar.drain()
  await rig.clock.advanceAsync(9000)
  t.equal((await closed(hosted)).reason, 'draining')
  respond()
  t.equal((await asked).status, 200)
  await rig.clock.advanceAsync(5000)
  await drained
})
