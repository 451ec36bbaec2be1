/** A terminating pod finishes its turns, under every other check; and one connection asks once. */

import { once } from 'node:events'
import { test, type Test } from 'tap'
import { FakeClock } from '../kit/fake-clock.ts'
import {
  BUNDLE,
  getLines,
  postHead,
  startHostingRig,
  WORKER,
  type HostingRigOptions,
} from '../kit/hosting-rig.ts'
import { upgradeLines } from '../kit/raw-upgrade.ts'
import { waitUntil } from '../kit/wait.ts'

const GRACE = 'k8sTrust.terminationGrace=300s'

/** A rig whose worker's pod is known to be terminating, and whose own stream goes on. */
const startTerminating = async (t: Test, options: HostingRigOptions = {}) => {
  const clock = new FakeClock()
  const set = ['limits.idlePing=1h', GRACE, ...(options.set ?? [])]
  const rig = await startHostingRig({ clock, ...options, set })
  t.teardown(rig.stop)
  const { pod } = await rig.startNode()
  rig.api.patchPod('openclaw', pod.metadata.name, {
    metadata: { deletionTimestamp: '2030-11-23T12:00:00Z', deletionGracePeriodSeconds: 300 },
  })
  // The watch shows both in this order.
  rig.createPod('marker', '127.0.0.99')
  await waitUntil(async () => (await rig.metrics()).get('openclaw_k8s_watched_pods') === 2)
  const proof = [`X-OpenClaw-SA-Token: ${rig.mint({ pod })}`]
  return { ...rig, clock, pod, proof }
}

test('its token is good from its own address only', async (t) => {
  const rig = await startTerminating(t)
  const { proof } = rig
  t.equal((await rig.get(BUNDLE, proof)).status, 200)
  const foreign = { localAddress: '127.0.0.77' }
  const served = rig.served.length
  t.equal((await rig.get(BUNDLE, proof, foreign)).code, 'source_address_mismatch')
  t.equal((await rig.upgrade(proof, foreign)).code, 'source_address_mismatch')
  t.equal(rig.served.length, served, 'the gateway is not touched')
})

test('behind a mute watch it needs a live answer, and is refused once it is gone', async (t) => {
  const rig = await startTerminating(t)
  const { api, clock } = rig
  api.blackholeWatches()
  await clock.advanceAsync(2001)
  const gets = api.counts.podGets
  t.equal((await rig.get()).status, 200)
  t.equal(api.counts.podGets, gets + 1)
  api.deletePod('openclaw', rig.pod.metadata.name)
  await clock.advanceAsync(2001)
  t.equal((await rig.get()).code, 'pod_not_found')
})

test('its failures are charged as those of any pod', async (t) => {
  const rig = await startTerminating(t, {
    set: ['limits.failuresPerAddress=1/s'],
    serve: (_request, response) => response.writeHead(404, { 'Content-Length': 0 }).end(),
  })
  const answers: unknown[] = []
  for (let n = 0; n < 15; n += 1) {
    const { status, code } = await rig.get()
    answers.push(code ?? status)
  }
  t.ok(answers.includes('rate_limited'), JSON.stringify(answers))
})

const asText = (lines: readonly string[]) => `${lines.join('\r\n')}\r\n\r\n`
const get = asText(getLines(BUNDLE))
const post = postHead(5)
const hosted = asText(upgradeLines(WORKER))

/** What a connection sends, in pieces that the sidecar reads one by one. */
const SEQUENCES: Readonly<Record<string, readonly string[]>> = {
  'a GET, then an upgrade of a hosted worker': [get, hosted],
  'a GET, then an upgrade of an own stream': [get, asText(upgradeLines('/'))],
  'a GET, then CONNECT': [get, 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n'],
  'a GET, then two more': [get, get, get],
  'a POST whose head ends in two pieces, then an upgrade': [post.slice(0, -1), '\nhello', hosted],
  'a POST whose head ends in two pieces, with an upgrade behind its body': [
    post.slice(0, -1),
    `\nhello${hosted}`,
  ],
  'a POST whose head ends in three pieces': [post.slice(0, -2), '\r', `\nhello${hosted}`],
  'a GET whose head ends in two pieces, with an upgrade behind it': [
    get.slice(0, -1),
    `\n${hosted}`,
  ],
  'a POST, then an upgrade': [`${post}hello`, hosted],
}

for (const [name, pieces] of Object.entries(SEQUENCES)) {
  test(`of one connection the first request is answered, and nothing else: ${name}`, async (t) => {
    const held: (() => void)[] = []
    const rig = await startHostingRig({
      serve: (_request, response) =>
        void held.push(() => response.writeHead(200, { 'Content-Length': 5 }).end('hello')),
    })
    t.teardown(rig.stop)
    await rig.startNode()
    const socket = await rig.open()
    socket.setNoDelay(true)
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
    const closed = once(socket, 'close')
    for (const piece of pieces) {
      socket.write(piece, 'latin1')
      // Another connection is served in between, so that the piece was read by itself.
      await (await fetch(`${rig.adminUrl}/readyz`)).text()
      await (await fetch(`${rig.adminUrl}/readyz`)).text()
    }
    await waitUntil(() => held.length > 0)
    for (const answer of held) answer()
    await closed
    t.equal(rig.served.length, 1, 'the gateway saw one request')
    t.match(text, /^HTTP\/1\.1 200 OK\r\n/)
    t.ok(text.endsWith('\r\n\r\nhello'), text)
    t.equal(text.match(/HTTP\/1\.1/g)?.length, 1)
  })
}
