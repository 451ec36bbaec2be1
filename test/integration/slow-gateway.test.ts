/** What happens while a gateway takes its time: nobody gets in on an old word, and no byte is lost. */

import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { test, type Test } from 'tap'
import { WebSocket } from 'ws'
import { acceptKeyOf } from '@openclaw-k8s/auth-sidecar/websocket/accept-key.ts'
import { closeFrame, textFrame } from '@openclaw-k8s/auth-sidecar/websocket/frames.ts'
import { listen } from '../kit/splice-rig.ts'
import { waitUntil } from '../kit/wait.ts'
import { codeOf, startWatchedRig } from '../kit/watched-rig.ts'
import { closed, nextMessage } from '../kit/worker-client.ts'

const NS = 'openclaw'
const POD = 'worker-a'
const IP = '127.0.0.11'

/** A gateway that answers when a test says so. */
const startSlowGateway = async (t: Test) => {
  const server = createServer({ allowHalfOpen: true, noDelay: true })
  const port = await listen(server)
  const sockets: Socket[] = []
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return {
    url: `ws://127.0.0.1:${port}`,
    /** The next worker's connection, when its request is read. */
    async next() {
      const [socket] = (await once(server, 'connection')) as [Socket]
      sockets.push(socket)
      socket.on('error', () => {})
      const gone = new Promise<void>((resolve) => void socket.once('close', () => resolve()))
      let head = ''
      while (!head.includes('\r\n\r\n')) head += String((await once(socket, 'data'))[0])
      const key = /^sec-websocket-key: *(.*)$/im.exec(head)?.[1]?.trim() ?? ''
      // So that its end is seen.
      socket.resume().on('end', () => socket.end())
      const answer =
        'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${acceptKeyOf(key)}\r\n\r\n`
      return { socket, gone, accept: () => void socket.write(answer) }
    },
  }
}

/** A worker whose pod is known, and a gateway that has not answered it. */
const setUp = async (t: Test) => {
  const gateway = await startSlowGateway(t)
  const rig = await startWatchedRig(t, {
    api: { successCacheMs: 60_000 },
    set: [`gateway.url=${gateway.url}`],
  })
  const token = rig.mint({ pod: rig.createPod(POD, IP) })
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_watched_pods') === 1)
  const dial = async () => {
    const arrival = gateway.next()
    const outcome = rig.connect(token)
    return { outcome, ...(await arrival) }
  }
  return { ...rig, token, gateway, dial }
}

/** The watch goes mute, and the gateway answers more than two seconds later. */
const takeTime = async ({ api, clock }: Awaited<ReturnType<typeof setUp>>) => {
  api.blackholeWatches()
  await clock.advanceAsync(2001)
}

/** The gateway has answered late, and the second question waits for the API server. */
const untilAsked = async (rig: Awaited<ReturnType<typeof setUp>>, accept: () => void) => {
  await takeTime(rig)
  rig.api.pause('podGets')
  accept()
  await rig.api.arrived('podGets')
}

test('a pod that goes behind a mute watch while the gateway takes its time stays out', async (t) => {
  const rig = await setUp(t)
  const { outcome, accept, gone } = await rig.dial()
  rig.api.blackholeWatches()
  rig.api.deletePod(NS, POD)
  await rig.clock.advanceAsync(2001)
  const gets = rig.api.counts.podGets
  accept()
  t.equal(codeOf(await outcome), 'pod_not_found')
  await gone
  t.equal(rig.api.counts.podGets, gets + 1, 'it was asked for once more')
})

test('so does one whose ServiceAccount goes', async (t) => {
  const rig = await setUp(t)
  const { outcome, accept, gone } = await rig.dial()
  rig.api.blackholeWatches('serviceaccounts')
  rig.api.deleteServiceAccount(NS, 'openclaw-worker')
  await rig.clock.advanceAsync(2001)
  accept()
  t.equal(codeOf(await outcome), 'service_account_deleted')
  await gone
})

test('an answer about its pod does not grow younger while its ServiceAccount is asked for', async (t) => {
  const { api, clock, gateway, connect, token } = await setUp(t)
  api.blackholeWatches()
  await clock.advanceAsync(2001)
  api.pause('serviceAccountLookups')
  const arrival = gateway.next()
  const outcome = connect(token)
  await api.requested('podGets', 1)
  await api.arrived('serviceAccountLookups')
  for (let n = 0; n < 5; n += 1) await clock.advanceAsync(0)
  api.deletePod(NS, POD)
  await clock.advanceAsync(1700)
  api.release('serviceAccountLookups')
  const { accept, gone } = await arrival
  await clock.advanceAsync(301)
  const lookups = api.counts.serviceAccountLookups
  accept()
  t.equal(codeOf(await outcome), 'pod_not_found')
  await gone
  t.equal(
    api.counts.serviceAccountLookups,
    lookups,
    'what is still believed is not asked for again',
  )
})

test('a gateway that is quick, or a watch that is heard, costs no second question', async (t) => {
  const rig = await setUp(t)
  const { api, clock } = rig
  await clock.advanceAsync(2001)
  const quick = await rig.dial()
  const { podGets: gets, serviceAccountLookups: lookups } = api.counts
  await clock.advanceAsync(2000)
  quick.accept()
  t.equal(codeOf(await quick.outcome), 'ok')
  t.strictSame([api.counts.podGets, api.counts.serviceAccountLookups], [gets, lookups])

  const heard = await rig.dial()
  const asked = api.counts.podGets
  await clock.advanceAsync(2001)
  rig.createPod('word', '127.0.0.13')
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_watched_pods') === 2)
  heard.accept()
  t.equal(codeOf(await heard.outcome), 'ok')
  t.equal(api.counts.podGets, asked, 'the pods are heard of')
})

test('a live pod gets in after the second question, with every byte that the gateway sent meanwhile', async (t) => {
  const rig = await setUp(t)
  const { outcome, accept, socket } = await rig.dial()
  await untilAsked(rig, accept)
  const sent = ['early', 'x'.repeat(1_000_000), 'last']
  for (const text of sent) socket.write(textFrame(text, { masked: false }))
  // Half of the connection ends, and what was sent is still to be read.
  socket.end(closeFrame({ code: 1000, reason: 'done', masked: false }))
  for (let n = 0; n < 5; n += 1) await rig.clock.advanceAsync(0)
  rig.api.release('podGets')
  const admitted = await outcome
  if (!admitted.ok) throw new Error(codeOf(admitted))
  for (const text of sent) t.ok((await nextMessage(admitted.socket)).text === text)
  t.same(await closed(admitted.socket), { code: 1000, reason: 'done' })
})

test('a gateway that resets its connection during the second question is told as one that is gone', async (t) => {
  const rig = await setUp(t)
  const { outcome, accept, socket } = await rig.dial()
  await untilAsked(rig, accept)
  socket.resetAndDestroy()
  rig.api.release('podGets')
  const told = await outcome
  if (told.ok) t.same(await closed(told.socket), { code: 1013, reason: 'gateway_gone' })
  else t.equal(codeOf(told), 'gateway_gone')
})

test("where nobody answers the second question, a verdict of just now is refused, and the gateway's socket closes", async (t) => {
  const rig = await setUp(t)
  const { outcome, accept, gone } = await rig.dial()
  await takeTime(rig)
  rig.api.setFault('podGets', { kind: 'status', status: 500, body: {} })
  accept()
  const refused = await outcome
  t.match(refused, { ok: false, status: 503 })
  t.equal(codeOf(refused), 'pod_unconfirmed')
  await gone
  const cached = await rig.dial()
  await rig.clock.advanceAsync(2001)
  cached.accept()
  t.equal(codeOf(await cached.outcome), 'ok', 'a cached one still counts')
})

test('a worker that leaves during the second question leaves no socket at the gateway', async (t) => {
  const rig = await setUp(t)
  const arrival = rig.gateway.next()
  const worker = new WebSocket(rig.url, {
    localAddress: IP,
    headers: { authorization: `Bearer ${rig.token}` },
  })
  worker.on('error', () => {})
  const { accept, gone } = await arrival
  await untilAsked(rig, accept)
  worker.terminate()
  await gone
  rig.api.release('podGets')
  t.equal((await rig.metrics()).get('openclaw_k8s_streams'), 0)
})
