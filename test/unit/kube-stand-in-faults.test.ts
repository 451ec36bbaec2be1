/** The stand-in API server reports what happens in order, and fails on demand. */

import { once } from 'node:events'
import { mkdtemp, readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import type { ReviewBody } from '../kit/kube-faults.ts'
import type { KubeApi } from '../kit/kube-api.ts'
import { runUntil } from '../kit/run-clock.ts'
import { call, open, PODS, review, REVIEWS, start } from '../kit/kube-calls.ts'

/** The lines of a watch, one at a time. */
const watchLines = async (api: KubeApi, query: string) => {
  const response = await open(api, `${PODS}?watch=1&${query}`, { token: api.sidecarToken() })
  const lines = createInterface({ input: response })[Symbol.asyncIterator]()
  const next = async () => {
    const { value, done } = (await lines.next()) as { value: string; done: boolean }
    if (done) return { type: 'END', object: { metadata: {} } } as WatchLine
    return JSON.parse(value) as WatchLine
  }
  return { next, response }
}

const asOther = (told: ReviewBody): ReviewBody => {
  told.status.user.username = 'system:serviceaccount:lab:other'
  return told
}

const gone = async (response: IncomingMessage): Promise<void> =>
  new Promise((resolve) => response.once('close', resolve))

type WatchLine = {
  readonly type: string
  readonly object: {
    readonly kind?: string
    readonly code?: number
    readonly metadata: {
      readonly name?: string
      readonly resourceVersion?: string
      readonly deletionTimestamp?: string
      readonly annotations?: Record<string, string>
    }
  }
}

t.test('a watch reports the life of a pod in order, and nothing about other pods', async (test) => {
  const { api, pod } = await start(test)
  api.createServiceAccount('lab', 'other')
  const watch = await watchLines(
    api,
    `resourceVersion=${pod.metadata.resourceVersion}&allowWatchBookmarks=true` +
      '&fieldSelector=spec.serviceAccountName=agent',
  )
  await api.watchesOpened(1)
  api.createPod({ namespace: 'lab', name: 'x', serviceAccount: 'other' })
  api.createPod({ namespace: 'elsewhere', name: 'agent-1', serviceAccount: 'agent' })
  const patched = api.patchPod('lab', 'agent-1', { status: { phase: 'Failed', podIP: null } })
  test.strictSame(patched.status.podIPs, [{ ip: '127.0.0.2' }])
  test.notOk('podIP' in patched.status)
  api.deletePod('lab', 'agent-1', { gracePeriodSeconds: 30 })
  api.finishPod('lab', 'agent-1')
  api.sendBookmark()
  const events = []
  for (let n = 0; n < 5; n += 1) events.push(await watch.next())
  test.strictSame(
    events.map(({ type, object }) => [type, object.kind, object.metadata.name]),
    [
      ['MODIFIED', 'Pod', 'agent-1'],
      ['MODIFIED', 'Pod', 'agent-1'],
      ['MODIFIED', 'Pod', 'agent-1'],
      ['DELETED', 'Pod', 'agent-1'],
      ['BOOKMARK', 'Pod', undefined],
    ],
  )
  const deletions = events.map(({ object }) => object.metadata.deletionTimestamp !== undefined)
  test.strictSame(deletions, [false, true, true, true, false])
  test.equal(
    events[3]?.object.metadata.resourceVersion,
    events[4]?.object.metadata.resourceVersion,
    'a bookmark names the newest version',
  )
})

t.test(
  'a watch begins with the current state, with what was missed or with a 410',
  async (test) => {
    const { api, pod } = await start(test)
    const fresh = await watchLines(api, 'resourceVersion=0&allowWatchBookmarks=true')
    test.equal((await fresh.next()).type, 'ADDED')
    test.strictSame((await fresh.next()).object.metadata.annotations, {
      'k8s.io/initial-events-end': 'true',
    })
    api.createPod({ namespace: 'lab', name: 'late', serviceAccount: 'agent' })
    const behind = await watchLines(api, `resourceVersion=${pod.metadata.resourceVersion}`)
    test.match(await behind.next(), { type: 'ADDED', object: { metadata: { name: 'late' } } })
    api.expireWatches()
    test.match(await behind.next(), { type: 'ERROR', object: { kind: 'Status', code: 410 } })
    test.equal((await behind.next()).type, 'END')
    const stale = await watchLines(api, `resourceVersion=${pod.metadata.resourceVersion}`)
    test.match(await stale.next(), { type: 'ERROR', object: { code: 410 } })
  },
)

t.test('a watch ends at its timeout, when dropped, and is mute in a blackhole', async (test) => {
  const { api, clock } = await start(test)
  const query = 'resourceVersion=0&timeoutSeconds=20'
  const timed = await watchLines(api, query)
  await timed.next()
  clock.advance(20_000)
  test.equal((await timed.next()).type, 'END')

  const mute = await watchLines(api, query)
  await mute.next()
  let heard = ''
  mute.response.on('data', (chunk: Buffer) => (heard += chunk.toString()))
  api.blackholeWatches()
  api.createPod({ namespace: 'lab', name: 'unseen', serviceAccount: 'agent' })
  clock.advance(20_000)
  test.equal(api.openWatches(), 1, 'still connected past its timeout')
  const later = await watchLines(api, query)
  test.equal((await later.next()).object.metadata.name, 'agent-1', 'a new watch is served')
  later.response.on('error', () => {})
  mute.response.on('error', () => {})
  api.dropWatches()
  await Promise.all([gone(mute.response), gone(later.response)])
  test.equal(heard, '')
  test.notOk(mute.response.complete)
  test.equal(clock.pending, 0, 'no timer outlives its watch')
})

t.test('each fault shows once it is armed, for as long as configured', async (test) => {
  const { api, clock, pod } = await start(test)
  const token = api.mintToken({ pod, audiences: ['lab-aud'] })
  const once1 = { times: 1 }
  const body = { spec: { token, audiences: ['lab-aud'] } }
  const post = async () => call(api, REVIEWS, { token: api.sidecarToken(), body })

  const headers = { 'retry-after': '1' }
  api.setFault('tokenReviews', { kind: 'status', status: 429, body: 'slow', headers }, once1)
  test.match(await post(), { status: 429, text: 'slow' })
  test.match(await post(), { status: 201 }, 'gone after its time')
  api.setFault('tokenReviews', { kind: 'reset' })
  await test.rejects(post(), { code: 'ECONNRESET' })
  await test.rejects(post(), { code: 'ECONNRESET' })
  api.clearFaults()
  api.setFault('*', { kind: 'garbage' }, once1)
  const { text } = await post()
  test.throws(() => JSON.parse(text) as unknown)
  api.setFault('tokenReviews', { kind: 'halfBody', ending: 'cut' }, once1)
  await test.rejects(post(), { code: 'ECONNRESET' })
  api.setFault('tokenReviews', { kind: 'wrongAudience' }, once1)
  test.strictSame((await review(api, token)).status.audiences, undefined)
  api.setFault('tokenReviews', { kind: 'wrongAudience', audiences: ['x'] }, once1)
  test.match((await review(api, token)).status, { authenticated: true, audiences: ['x'] })
  api.setFault('tokenReviews', { kind: 'rewriteReview', rewrite: asOther }, once1)
  test.match((await review(api, token)).status.user.username, /lab:other$/)

  api.setFault('tokenReviews', { kind: 'delay', ms: 3000 }, once1)
  const arriving = api.requested('tokenReviews', api.counts.tokenReviews + 1)
  let isAnswered = false
  const delayed = post().finally(() => (isAnswered = true))
  await arriving
  await call(api, '/readyz')
  test.notOk(isAnswered)
  await clock.advanceAsync(3000)
  test.match(await delayed, { status: 201 })

  api.setFault('lists', { kind: 'halfBody', ending: 'stall' }, once1)
  const half = await open(api, PODS, { token: api.sidecarToken() })
  const [chunk] = (await once(half, 'data')) as [Buffer]
  test.equal(chunk.length, Number(half.headers['content-length']) >> 1)
  half.on('error', () => {})

  api.setFault('watches', { kind: 'status', status: 500 }, once1)
  const refused = await open(api, `${PODS}?watch=1`, { token: api.sidecarToken() })
  test.equal(refused.statusCode, 500)

  api.setFault('tokenReviews', { kind: 'hang' }, once1)
  const hanging = post()
  await api.requested('tokenReviews', api.counts.tokenReviews + 1)
  api.dropConnections()
  await test.rejects(hanging, { code: 'ECONNRESET' })
})

t.test('a review can be held after its verdict and before its answer', async (test) => {
  const { api, pod } = await start(test)
  const token = api.mintToken({ pod, audiences: ['lab-aud'] })
  api.pauseReviews()
  const held = review(api, token)
  await api.reviewArrived()
  api.deletePod('lab', 'agent-1')
  const second = review(api, token)
  await api.reviewArrived()
  test.equal(api.reviewsHeld(), 2)
  api.releaseReviews()
  test.equal((await held).status.authenticated, true, 'decided before the pod was gone')
  test.equal((await second).status.authenticated, undefined)
  test.equal((await review(api, token)).status.authenticated, undefined, 'later ones pass')
})

t.test(
  'a paced route answers one request after another, and turns away those that would wait too long',
  async (test) => {
    const pace = { ratePerSecond: 10, serviceMs: 5, waitMsMax: 100 }
    const { api, clock, pod } = await start(test, { paces: { tokenReviews: pace } })
    const token = api.mintToken({ pod, audiences: ['lab-aud'] })
    const answeredAt: number[] = []
    const reviews = [1, 2].map(async () => {
      const { code } = await review(api, token)
      answeredAt.push(clock.monotonic())
      return code
    })
    await api.requested('tokenReviews', 2)
    const refused = await call(api, REVIEWS, { token: api.sidecarToken(), body: {} })
    test.equal(refused.status, 429)
    test.match(JSON.parse(refused.text), { kind: 'Status', reason: 'TooManyRequests' })
    test.strictSame(await runUntil(clock, Promise.all(reviews), 5), [201, 201])
    test.ok((answeredAt[0] ?? 0) < 100 && (answeredAt[1] ?? 0) >= 105, 'each in its turn')
    test.equal(
      (await call(api, PODS, { token: api.sidecarToken() })).status,
      200,
      'others do not wait',
    )
  },
)

t.test(
  'a stopped server refuses connections and comes back on its port with its state',
  async (test) => {
    const { api, pod } = await start(test)
    const watch = await watchLines(api, 'resourceVersion=0')
    await watch.next()
    watch.response.on('error', () => {})
    await api.stop()
    await test.rejects(call(api, '/readyz'), { code: 'ECONNREFUSED' })
    await api.start()
    const token = api.mintToken({ pod, audiences: ['lab-aud'] })
    test.equal((await review(api, token)).status.authenticated, true)
  },
)

t.test('a process can log in with the files of a pod', async (test) => {
  const { api } = await start(test)
  const files = await api.files(await mkdtemp(join(tmpdir(), 'kit-')))
  test.equal(await readFile(files.caFile, 'utf8'), api.ca())
  test.equal(await readFile(files.namespaceFile, 'utf8'), 'openclaw')
  const token = await readFile(files.tokenFile, 'utf8')
  test.equal((await call(api, PODS, { token })).status, 200)
})
