/** The reflector reports every change once, and knows when it may have missed one. */

import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { test, type Test } from 'tap'
import { OwnCredentials } from '@openclaw-k8s/auth-sidecar/kube/own-credentials.ts'
import { DeadlineError } from '@openclaw-k8s/auth-sidecar/lib/deadline.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import { AnswerTooLarge } from '@openclaw-k8s/auth-sidecar/kube/client.ts'
import { Reflector } from '@openclaw-k8s/auth-sidecar/kube/reflector.ts'
import { RelistNeeded, WatchClient } from '@openclaw-k8s/auth-sidecar/kube/watch-stream.ts'
import type { WatchEvent } from '@openclaw-k8s/auth-sidecar/kube/watch-stream.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { waitUntil } from '../kit/wait.ts'
import { FakeCollections } from '../kit/fake-collections.ts'

type Named = { readonly metadata: { readonly name: string } }

const setUp = (t: Test, { random = () => 0 }: { readonly random?: () => number } = {}) => {
  const clock = new FakeClock()
  const api = new FakeCollections()
  const told: string[] = []
  const faults: unknown[] = []
  const lived: number[] = []
  const reflector = new Reflector<string>({
    collection: { path: '/api/v1/things', fieldSelector: 'metadata.name=a' },
    lists: api.lists,
    watches: api.watches,
    clock,
    random,
    read: (object) => (object as Named).metadata.name,
    onReplaced: (items) => void told.push(`=${items.join(',')}`),
    onChanged: (item) => void told.push(`+${item}`),
    onDeleted: (item) => void told.push(`-${item}`),
    onFault: (error) => void faults.push(error),
    onLive: () => void lived.push(clock.monotonic()),
  })
  t.teardown(() => reflector.stop())
  const run = async () => {
    void reflector.run()
    await turn()
  }
  return { clock, api, told, faults, lived, reflector, run }
}

const event = (type: string, name: string, version: string): WatchEvent => ({
  type,
  object: { metadata: { name, resourceVersion: version } },
})
const queryOf = (path: string | undefined) =>
  Object.fromEntries(new URL(path ?? '', 'https://x').searchParams)

test('a collection is listed in pages and then watched from the version of its list', async (t) => {
  const { api, told, run, reflector } = setUp(t)
  api.answer(
    { items: [{ metadata: { name: 'a' } }], metadata: { resourceVersion: '7', continue: 'next' } },
    { items: [{ metadata: { name: 'b' } }], metadata: { resourceVersion: '7', continue: '' } },
  )
  t.equal(reflector.isSynced, false)
  await run()
  t.strictSame(told, ['=a,b'], 'reported in one piece')
  t.equal(reflector.isSynced, true)
  t.strictSame(api.asked.map(queryOf), [
    { limit: '100', fieldSelector: 'metadata.name=a' },
    { limit: '100', continue: 'next', fieldSelector: 'metadata.name=a' },
  ])
  t.strictSame(queryOf(api.opened.at(-1)?.path), {
    watch: '1',
    allowWatchBookmarks: 'true',
    resourceVersion: '7',
    timeoutSeconds: '20',
    fieldSelector: 'metadata.name=a',
  })
})

test('each change is reported once, and the next watch continues after the last one', async (t) => {
  const { api, clock, told, run, faults } = setUp(t)
  await run()
  const [first] = api.opened
  first?.push(event('ADDED', 'b', '11'), event('MODIFIED', 'b', '12'), event('DELETED', 'b', '13'))
  first?.push(event('BOOKMARK', '', '20'))
  await turn()
  t.strictSame(told, ['=', '+b', '+b', '-b'])
  await clock.advanceAsync(20_000)
  first?.end()
  await turn()
  t.equal(api.opened.length, 2)
  t.equal(queryOf(api.opened[1]?.path)['resourceVersion'], '20', 'also behind a bookmark')
  t.equal(api.asked.length, 1, 'without another list')
  t.strictSame(faults, [])
  t.equal(told.length, 4)
})

test('after a version that is too old everything is listed again, whenever the watch says so', async (t) => {
  const { api, clock, told, run } = setUp(t)
  await run()
  api.answer({ items: [{ metadata: { name: 'c' } }], metadata: { resourceVersion: '30' } })
  api.opened[0]?.fail(new RelistNeeded())
  await turn()
  await clock.advanceAsync(50)
  t.strictSame(told, ['=', '=c'])
  t.equal(queryOf(api.opened[1]?.path)['resourceVersion'], '30')
  api.refuseWatches(new RelistNeeded())
  api.opened[1]?.fail(new Error('cut'))
  await clock.advanceAsync(50)
  api.refuseWatches(undefined)
  await clock.advanceAsync(100)
  t.equal(api.asked.length, 3)
  t.equal(api.opened.length, 3)
})

test('a failing API server is asked after pauses that grow, are jittered and stay bounded', async (t) => {
  for (const [jitter, factor] of [
    [0, 0.5],
    [1, 1],
  ] as const) {
    const { api, clock, run, faults } = setUp(t, { random: () => jitter })
    const at: number[] = []
    await run()
    api.refuseWatches(new Error('down'), () => void at.push(clock.monotonic()))
    api.opened[0]?.fail(new Error('cut'))
    await clock.advanceAsync(20_000)
    const pauses = at.map((ms, nth) => ms - (at[nth - 1] ?? 0))
    t.strictSame(
      pauses.slice(0, 9),
      [50, 100, 200, 400, 800, 1600, 3000, 3000, 3000].map((ms) => ms * factor),
    )
    t.equal(faults.length, at.length + 1, 'each is reported')
    api.refuseWatches(undefined)
    await clock.advanceAsync(3000)
    api.opened[1]?.push(event('BOOKMARK', '', '40'))
    await turn()
    api.opened[1]?.fail(new Error('cut'))
    await clock.advanceAsync(50 * factor)
    t.equal(api.opened.length, 3, 'an event starts it over')
  }
})

test('a watch that ends cleanly but at once is not opened again without a pause', async (t) => {
  const { api, clock, run, faults } = setUp(t)
  await run()
  api.opened[0]?.end()
  await turn()
  await turn()
  t.equal(api.opened.length, 1)
  t.equal(faults.length, 1)
  await clock.advanceAsync(25)
  t.equal(api.opened.length, 2)
})

test('a watch that flaps without an event stays stale, and its pauses grow', async (t) => {
  const { api, clock, run, reflector } = setUp(t)
  await run()
  await clock.advanceAsync(5000)
  api.opened[0]?.fail(new Error('cut'))
  await turn()
  const since = clock.monotonic()
  for (const pause of [25, 50, 100, 200]) {
    const count = api.opened.length
    await clock.advanceAsync(pause - 1)
    t.equal(api.opened.length, count)
    await clock.advanceAsync(1)
    t.equal(api.opened.length, count + 1)
    t.equal(reflector.staleForMs, clock.monotonic() - since)
    api.opened.at(-1)?.fail(new Error('cut again'))
    await turn()
  }
  await clock.advanceAsync(400)
  api.opened.at(-1)?.push(event('BOOKMARK', '', '20'))
  await turn()
  t.equal(reflector.staleForMs, 0, 'an event ends it')
})

test('a watch that exceeds its time is treated as dead, and resumes where it was', async (t) => {
  const { api, clock, run, reflector } = setUp(t, { random: () => 1 })
  await run()
  const [first] = api.opened
  t.equal(queryOf(first?.path)['timeoutSeconds'], '30')
  first?.push(event('ADDED', 'b', '11'))
  await clock.advanceAsync(34_999)
  t.equal(first?.signal.aborted, false)
  t.equal(reflector.staleForMs, 0)
  await clock.advanceAsync(1)
  t.equal(first?.signal.aborted, true)
  await clock.advanceAsync(25)
  t.equal(reflector.staleForMs, 25, 'stale from the moment it was known to be dead')
  await clock.advanceAsync(25)
  t.equal(api.opened.length, 2)
  t.equal(queryOf(api.opened[1]?.path)['resourceVersion'], '11')
  t.equal(reflector.staleForMs, 50, 'a watch that only opens shows nothing yet')
  await clock.advanceAsync(999)
  t.equal(reflector.staleForMs, 1049)
  await clock.advanceAsync(1)
  t.equal(reflector.staleForMs, 0, 'but one that lasts does')
})

test('silence is counted from the last event, and without an open watch it never ends', async (t) => {
  const { api, clock, run, reflector } = setUp(t)
  t.equal(reflector.silentForMs, Infinity, 'before the first list')
  t.equal(reflector.staleForMs, 0)
  clock.advance(5)
  t.equal(reflector.staleForMs, 5)
  await run()
  t.equal(reflector.silentForMs, 0, 'the list counts as an event')
  await clock.advanceAsync(1500)
  t.equal(reflector.silentForMs, 1500)
  api.opened[0]?.push(event('BOOKMARK', '', '11'))
  await turn()
  t.equal(reflector.silentForMs, 0)
  api.opened[0]?.fail(new Error('cut'))
  await turn()
  t.equal(reflector.silentForMs, Infinity, 'something may be missed from the cut on')
  await clock.advanceAsync(25)
  t.equal(api.opened.length, 2)
  t.equal(reflector.silentForMs, 25, 'the new watch goes on where the old one ended')
})

test('an event that is not understood is a fault, is never skipped, and causes a new list', async (t) => {
  const strange: readonly WatchEvent[] = [
    event('SOMETHING', 'b', '11'),
    { type: 'ADDED', object: { metadata: { name: 'b' } } },
    { type: 'ADDED', object: null },
  ]
  for (const each of strange) {
    const { api, clock, told, run, faults } = setUp(t)
    await run()
    api.answer({ items: [{ metadata: { name: 'b' } }], metadata: { resourceVersion: '12' } })
    api.opened[0]?.push(each, event('ADDED', 'c', '12'))
    await turn()
    t.equal(faults.length, 1)
    t.strictSame(told, ['='])
    await clock.advanceAsync(50)
    t.strictSame(told, ['=', '=b'])
    t.equal(queryOf(api.opened[1]?.path)['resourceVersion'], '12')
  }
  const { api, clock, told, run } = setUp(t)
  api.answer({ kind: 'Status' }, { items: [], metadata: {} })
  await run()
  t.equal(told.length, 0, 'an answer that is not a list empties nothing')
  await clock.advanceAsync(200)
  t.strictSame(told, ['='])
  t.equal(api.asked.length, 3)
})

test('a stopped reflector reports nothing more, whatever was under way', async (t) => {
  const listing = setUp(t)
  const held = listing.api.hold()
  await listing.run()
  listing.reflector.stop()
  held.resolve({ items: [{ metadata: { name: 'a' } }], metadata: { resourceVersion: '9' } })
  await turn()
  t.strictSame(listing.told, [], 'a list that comes late')
  t.equal(listing.api.opened.length, 0)

  const watching = setUp(t)
  await watching.run()
  watching.api.opened[0]?.push(event('ADDED', 'b', '11'))
  watching.reflector.stop()
  await turn()
  t.strictSame(watching.told, ['='], 'an event that comes late')
  t.equal(watching.api.opened[0]?.signal.aborted, true)

  const pausing = setUp(t)
  pausing.api.refuseWatches(new Error('down'))
  await pausing.run()
  t.equal(pausing.clock.pending, 1)
  pausing.reflector.stop()
  await turn()
  for (const { clock, faults } of [listing, watching, pausing]) {
    t.equal(clock.pending, 0, 'no timer is left behind')
    t.ok(faults.length <= 1, 'and a requested end is not a fault')
  }
})

/** An HTTP server whose every answer comes from the test, and a watch client for it. */
const serve = async (t: Test, answer: (response: ServerResponse, token: string) => void) => {
  const clock = new FakeClock()
  const files = { token: 'first', ca: 'a CA' }
  const refusals: number[] = []
  const server = createServer((request, response) =>
    answer(response, request.headers.authorization?.slice('Bearer '.length) ?? ''),
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const client = new WatchClient({
    apiServer: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    credentials: new OwnCredentials({
      tokenFile: 'token',
      caFile: 'ca',
      readFile: (path) => files[path as keyof typeof files],
      clock,
    }),
    clock,
    onOwnCredentialRefused: (status) => void refusals.push(status),
  })
  t.teardown(async () => {
    await client.close()
    server.closeAllConnections()
    server.close()
  })
  const controller = new AbortController()
  let opened = 0
  const read = async () => {
    const events: WatchEvent[] = []
    const { signal } = controller
    for await (const each of client.open({ path: '/w', signal, onOpen: () => (opened += 1) })) {
      events.push(each)
    }
    return events
  }
  return { read, controller, clock, files, refusals, opened: () => opened }
}

test('a line is an event however its bytes are split, and an empty line is not', async (t) => {
  const text = '{"type":"ADDED","object":{"n":"ü"}}\n\n{"type":"DELETED","object":{}}\n'
  const bytes = Buffer.from(text)
  for (const size of [1, 7, bytes.length]) {
    const { read, opened } = await serve(t, (response) => {
      response.setHeader('x', '')
      response.flushHeaders()
      const send = (at: number) => {
        if (at >= bytes.length) response.end()
        else response.write(bytes.subarray(at, at + size), () => send(at + size))
      }
      send(0)
    })
    t.strictSame(await read(), [
      { type: 'ADDED', object: { n: 'ü' } },
      { type: 'DELETED', object: {} },
    ])
    t.equal(opened(), 1)
  }
})

test('every other end of a watch is an error, and those that need a new list are recognized', async (t) => {
  const status = (code: number) => `{"type":"ERROR","object":{"kind":"Status","code":${code}}}\n`
  const answers: readonly (readonly [string, (response: ServerResponse) => void, RegExp])[] = [
    ['410 as a line', (response) => response.end(status(410)), /too old/],
    ['500 as a line', (response) => response.end(status(500)), /an error 500/],
    ['no JSON', (response) => response.end('{"type":\n'), /JSON/],
    ['no event', (response) => response.end('[]\n'), /not an event/],
    ['no type', (response) => response.end('{"type":1,"object":{}}\n'), /not an event/],
    ['a cut', (response) => response.write('{', () => response.destroy()), /./],
    ['a line without end', (response) => response.end(Buffer.alloc(4_200_000, 0x20)), /exceeds/],
    ['410', (response) => response.writeHead(410).end('{}'), /too old/],
    ['500', (response) => response.writeHead(500).end('{}'), /answered 500/],
  ]
  for (const [name, answer, message] of answers) {
    const { read, refusals } = await serve(t, answer)
    const error = await read().then(
      () => undefined,
      (reason: unknown) => reason,
    )
    t.match((error as Error).message, message, name)
    t.equal(
      error instanceof RelistNeeded,
      /^410|^no (JSON|event|type)/.test(name),
      `${name}: listed again or not`,
    )
    t.strictSame(refusals, [])
  }
})

test('a rotation of our token during a watch does not count as a refusal; a refusal does', async (t) => {
  let good = 'second'
  const { read, files, refusals, opened } = await serve(t, (response, token) => {
    response.writeHead(token === good ? 200 : 401).end()
  })
  const started = [read(), read()]
  files.token = 'second'
  for (const each of started) await t.rejects(each, /answered 401/)
  t.strictSame(refusals, [], 'both came with the old one, and the file holds another')
  t.strictSame(await read(), [], 'which is shown from then on')
  t.equal(opened(), 1)
  good = 'third'
  await t.rejects(read(), /answered 401/)
  t.strictSame(refusals, [401])
})

test('a watch without an answer is given up, and one under way ends with its signal', async (t) => {
  const mute = await serve(t, () => {})
  const waiting = mute.read()
  waiting.catch(() => {})
  await mute.clock.advanceAsync(10_000)
  await t.rejects(waiting, /no answer within 10000 ms/)
  t.equal(mute.opened(), 0)

  const quiet = await serve(t, (response) => response.flushHeaders())
  const watching = quiet.read()
  watching.catch(() => {})
  await waitUntil(() => quiet.opened() > 0)
  await quiet.clock.advanceAsync(3_600_000)
  t.equal(quiet.clock.pending, 0, 'no deadline but the signal')
  quiet.controller.abort(new Error('enough'))
  await t.rejects(watching, /enough/)
})

test('a page that is too large is asked for with fewer objects, until one fits', async (t) => {
  const { api, told, run, reflector, faults } = setUp(t)
  const all = Array.from({ length: 9 }, (_, n) => ({ metadata: { name: String(n) } }))
  api.listOf = (path) => {
    const { limit, continue: from = '0' } = queryOf(path) as Record<string, string>
    const page = all.slice(Number(from), Number(from) + Number(limit))
    if (page.length > 2) throw new AnswerTooLarge('pod_unconfirmed', 'too large')
    const next = Number(from) + page.length
    const metadata = { resourceVersion: '7', continue: next < all.length ? String(next) : '' }
    return { items: page, metadata }
  }
  await run()
  for (let n = 0; n < 20; n += 1) await turn()
  t.strictSame(told, ['=0,1,2,3,4,5,6,7,8'])
  t.equal(reflector.isSynced, true)
  t.strictSame(faults, [])
  const limits = api.asked.map((path) => Number(queryOf(path)['limit']))
  t.strictSame(limits.slice(0, 7), [100, 50, 25, 13, 7, 4, 2])
})

/** The pages of `count` objects, from a server that answers none in time that has more than `max`. */
const slowAbove = (max: number, count: number) => (path: string) => {
  const { limit, continue: from = '0' } = queryOf(path) as Record<string, string>
  const all = Array.from({ length: count }, (_, n) => ({ metadata: { name: String(n) } }))
  const page = all.slice(Number(from), Number(from) + Number(limit))
  const late = { cause: new DeadlineError(15_000) }
  if (page.length > max) throw new Fault('pod_unconfirmed', 'no answer', late)
  const next = Number(from) + page.length
  return {
    items: page,
    metadata: { resourceVersion: '7', continue: next < count ? `${next}` : '' },
  }
}

test('a page that does not come in time is asked for with fewer objects, until the list is whole', async (t) => {
  for (const max of [1, 7, 49, 50, 60, 99]) {
    const { api, clock, run, reflector, faults } = setUp(t)
    api.listOf = slowAbove(max, 1000)
    await run()
    // A server that is slow is given a pause before each smaller try.
    for (let n = 0; n < 2000 && !reflector.isSynced; n += 1) await clock.advanceAsync(50)
    t.ok(reflector.isSynced, `above ${max}`)
    t.ok(faults.length >= 1 && faults.length <= 14, `${faults.length} are told`)
  }
})

test('after a server that answered nothing, pages grow while they come quickly', async (t) => {
  const { api, clock, run, reflector } = setUp(t)
  api.listOf = slowAbove(0, 1000)
  await run()
  await clock.advanceAsync(20_000)
  t.equal(queryOf(api.asked.at(-1))['limit'], '1')
  const before = api.asked.length
  api.listOf = slowAbove(100, 1000)
  await clock.advanceAsync(5000)
  t.ok(reflector.isSynced)
  const limits = api.asked.slice(before).map((path) => Number(queryOf(path)['limit']))
  t.strictSame(limits.slice(0, 9), [1, 2, 4, 8, 16, 32, 64, 100, 100])
})

test('a list that takes longer than 5 s counts as tried', async (t) => {
  const { api, clock, run, reflector } = setUp(t)
  api.hold()
  await run()
  await clock.advanceAsync(4999)
  t.equal(reflector.isTried, false)
  await clock.advanceAsync(1)
  t.strictSame([reflector.isTried, reflector.isSynced], [true, false])
})

test('a watch that has kept up for long is ended as if it had never been behind', async (t) => {
  const { clock, run, reflector, faults } = setUp(t)
  await run()
  /** Seconds until the watch can be ended again. */
  const gap = async () => {
    const isBehind = () => faults.some((fault) => String(fault).includes('the watch is behind'))
    for (let s = 0; ; s += 1) {
      faults.length = 0
      reflector.distrust()
      await clock.advanceAsync(1000)
      if (isBehind()) return s
    }
  }
  t.equal(await gap(), 0)
  const gaps = [await gap(), await gap(), await gap()]
  t.ok((gaps[2] ?? 0) > (gaps[0] ?? 0), `ever less often: ${gaps.join()}`)
  await clock.advanceAsync(300_000)
  await gap()
  const next = await gap()
  t.ok(next <= (gaps[0] ?? 0) + 2, `and from the start again: ${next}`)
})

test('one object that is too large for an answer is a fault, not a loop', async (t) => {
  const { api, run, reflector, faults } = setUp(t)
  api.listOf = () => {
    throw new AnswerTooLarge('pod_unconfirmed', 'too large')
  }
  await run()
  for (let n = 0; n < 20; n += 1) await turn()
  t.equal(faults.length, 1)
  t.equal(queryOf(api.asked.at(-1))['limit'], '1')
  t.strictSame([reflector.isTried, reflector.isSynced], [true, false])
})

test('a watch is told to live once it has lasted for a second', async (t) => {
  const { api, clock, run, lived } = setUp(t)
  await run()
  await clock.advanceAsync(999)
  t.strictSame(lived, [])
  await clock.advanceAsync(1)
  t.strictSame(lived, [1000])
  api.opened[0]?.fail(new Error('cut'))
  await clock.advanceAsync(100)
  api.opened[1]?.fail(new Error('cut'))
  api.refuseWatches(new Error('down'))
  await clock.advanceAsync(2000)
  t.strictSame(lived, [1000], 'one that was cut sooner never lived')
})

test('a watch that is behind is ended, and again only after 10 s, then ever less often', async (t) => {
  const { api, clock, run, reflector, faults } = setUp(t)
  reflector.distrust()
  await run()
  const ended: number[] = []
  for (let s = 0; s < 60; s += 1) {
    const open = api.opened.length
    reflector.distrust()
    reflector.distrust()
    await clock.advanceAsync(1000)
    if (api.opened.length > open) ended.push(s)
  }
  t.equal(ended[0], 0)
  const byTime = faults.filter((fault) => String(fault).includes('maximum duration')).length
  const gaps = ended.slice(1).map((at, index) => at - (ended[index] ?? 0))
  t.ok(
    gaps.every((gap) => gap >= 10),
    JSON.stringify(gaps),
  )
  t.ok(ended.length - byTime <= 3)
  t.match(String(faults[0]), /the watch is behind/)
})
