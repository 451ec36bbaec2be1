/** The pod watch knows which pods live, who has gone, and for whom it cannot speak. */

import { setImmediate as turn } from 'node:timers/promises'
import { test, type Test } from 'tap'
import { scopesOf } from '@openclaw-k8s/auth-sidecar/authz/watch-scopes.ts'
import { PodWatch } from '@openclaw-k8s/auth-sidecar/kube/pod-watch.ts'
import { readAccount, readPod } from '@openclaw-k8s/auth-sidecar/kube/pod.ts'
import type { Scope } from '@openclaw-k8s/auth-sidecar/kube/scope.ts'
import { RelistNeeded } from '@openclaw-k8s/auth-sidecar/kube/watch-stream.ts'
import { FakeClock } from '../kit/fake-clock.ts'
import { FakeCollections } from '../kit/fake-collections.ts'

type PodChanges = {
  readonly name?: string
  readonly namespace?: string
  readonly account?: string
  readonly ips?: readonly string[]
  readonly phase?: string
  readonly grace?: number
}

const podOf = (uid: string, changes: PodChanges = {}, version = '11') => {
  const { name = 'a', namespace = 'ns', account = 'sa', ips = ['10.0.0.1'], phase } = changes
  return {
    metadata: {
      uid,
      name,
      namespace,
      resourceVersion: version,
      annotations: { long: 'x'.repeat(1000) },
      ...(changes.grace === undefined
        ? {}
        : { deletionTimestamp: '2026-11-23T12:00:00Z', deletionGracePeriodSeconds: changes.grace }),
    },
    spec: { serviceAccountName: account, nodeName: 'node-1', containers: [{ name: 'worker' }] },
    status: { phase: phase ?? 'Running', podIPs: ips.map((ip) => ({ ip })), conditions: [{}] },
  }
}
const accountOf = (uid: string, name = 'sa', namespace = 'ns') => ({
  metadata: { uid, name, namespace, resourceVersion: '11' },
})
const listOf = (...items: readonly unknown[]) => ({ items, metadata: { resourceVersion: '10' } })

const NARROW: Scope = { namespace: 'ns', serviceAccount: 'sa' }
const WIDE: Scope = { namespace: 'ns', serviceAccount: undefined }

const setUp = (t: Test) => {
  const clock = new FakeClock()
  // A cache reads a time of 0 as no time.
  clock.advance(1)
  const api = new FakeCollections()
  const told: string[] = []
  const log: string[] = []
  const synced: number[] = []
  const watch = new PodWatch({
    lists: api.lists,
    watches: api.watches,
    clock,
    random: () => 0,
    onDown: ({ scope, resource }) => void log.push(`down: ${resource} of ${scope}`),
    onUp: ({ scope, resource }, ms) => void log.push(`up: ${resource} of ${scope}, ${ms} ms`),
  })
  watch.subscribe({
    podGone: ({ uid }) => void told.push(`gone ${uid}`),
    podChanged: ({ uid }) => void told.push(`changed ${uid}`),
    podEnding: ({ uid }) => void told.push(`ending ${uid}`),
    accountGone: ({ uid }) => void told.push(`account gone ${uid}`),
    scopeSynced: () => void synced.push(clock.monotonic()),
  })
  t.teardown(() => watch.stop())
  const objects: {
    pods: ReturnType<typeof podOf>[]
    accounts: ReturnType<typeof accountOf>[]
  } = { pods: [], accounts: [] }
  api.listOf = (path) => {
    const namespace = /\/namespaces\/([^/]+)\//.exec(path)?.[1]
    const all = path.includes('/serviceaccounts') ? objects.accounts : objects.pods
    return listOf(...all.filter(({ metadata }) => metadata.namespace === namespace))
  }
  const start = async (scopes: readonly Scope[] = [NARROW]) => {
    watch.watch(scopes)
    await turn()
    await turn()
  }
  const newest = (resource: string) =>
    api.opened.findLast(({ path }) => path.includes(`/${resource}?`))
  const say = async (type: string, object: unknown, resource = 'pods') => {
    newest(resource)?.push({ type, object })
    await turn()
  }
  /** All open watches are too old: everything is listed again. */
  const relist = async () => {
    for (const each of api.opened) each.fail(new RelistNeeded())
    await turn()
    await clock.advanceAsync(100)
  }
  return { clock, api, told, log, synced, watch, objects, start, newest, say, relist }
}

test('only a few fields of a pod are kept', async (t) => {
  t.strictSame(readPod(podOf('u', { ips: ['10.0.0.1', 'fd00::1'], grace: 30 })), {
    uid: 'u',
    name: 'a',
    namespace: 'ns',
    serviceAccount: 'sa',
    nodeName: 'node-1',
    ips: ['10.0.0.1', 'fd00::1'],
    phase: 'Running',
    isHostNetwork: false,
    terminationSeconds: 30,
  })
  const bare = { metadata: { uid: 'u', name: 'a', namespace: 'ns' }, spec: { hostNetwork: true } }
  t.strictSame(readPod(bare), {
    uid: 'u',
    name: 'a',
    namespace: 'ns',
    serviceAccount: 'default',
    nodeName: undefined,
    ips: [],
    phase: 'Pending',
    isHostNetwork: true,
    terminationSeconds: undefined,
  })
  const old = { ...bare, status: { podIP: '10.0.0.9' } }
  t.strictSame(readPod(old).ips, ['10.0.0.9'], 'an address that stands alone')
  const spelled = readPod(podOf('u', { ips: ['FD00:0::1', '::ffff:10.0.0.1', 'none'] })).ips
  t.strictSame(spelled, ['fd00::1', '10.0.0.1'], 'as sockets spell them')
  const forced = { ...bare, metadata: { ...bare.metadata, deletionTimestamp: 'now' } }
  t.equal(readPod(forced).terminationSeconds, 0, 'deleted without a grace')
  for (const nothing of [undefined, {}, { metadata: {} }, { kind: 'Status' }, accountOf('u')]) {
    t.throws(() => readPod(nothing))
  }
  t.strictSame(readAccount(accountOf('u')), { uid: 'u', name: 'sa', namespace: 'ns' })
  t.throws(() => readAccount({ metadata: { name: 'sa', namespace: 'ns' } }))
})

test('pods and ServiceAccounts are watched as narrowly as the allow-list permits', async (t) => {
  const { api, start, watch } = setUp(t)
  await start([NARROW, { namespace: undefined, serviceAccount: undefined }])
  t.strictSame(
    api.asked.map((path) => decodeURIComponent(path)).toSorted(),
    [
      '/api/v1/namespaces/ns/pods?limit=100&fieldSelector=spec.serviceAccountName=sa',
      '/api/v1/namespaces/ns/serviceaccounts?limit=100&fieldSelector=metadata.name=sa',
      '/api/v1/pods?limit=100',
      '/api/v1/serviceaccounts?limit=100',
    ].toSorted(),
  )
  t.equal(watch.scopes.isReady, true)
})

test('the watches follow the allow-list: exact names if there are few, otherwise everything', async (t) => {
  const allow = (...pairs: readonly (readonly [string, string])[]) =>
    scopesOf({
      enabled: true,
      allowedIdentities: pairs.map(([namespace, serviceAccount]) => ({
        namespace,
        serviceAccount,
        allowedRoles: ['node'],
        allowedCommands: ['*'],
      })),
    })
  t.strictSame(allow(), [])
  t.strictSame(allow(['a', 'x'], ['a', 'y'], ['b', 'x'], ['a', 'x']), [
    { namespace: 'a', serviceAccount: 'x' },
    { namespace: 'a', serviceAccount: 'y' },
    { namespace: 'b', serviceAccount: 'x' },
  ])
  t.strictSame(allow(['a', 'x'], ['a', 'y-*'], ['b', 'x']), [
    { namespace: 'a', serviceAccount: undefined },
    { namespace: 'b', serviceAccount: 'x' },
  ])
  t.strictSame(allow(['a', 'x'], ['team-?', 'x']), [
    { namespace: undefined, serviceAccount: undefined },
  ])
  const many = Array.from({ length: 9 }, (_, n) => ['a', `x${n}`] as const)
  t.equal(allow(...many.slice(1)).length, 8)
  t.strictSame(allow(...many), [{ namespace: 'a', serviceAccount: undefined }])
})

test('a pod is known from its first line to its last, and remembered as gone', async (t) => {
  const { clock, told, watch, start, say, objects, relist } = setUp(t)
  await start()
  t.equal(watch.find('u'), undefined)
  await say('ADDED', podOf('u', { ips: [] }))
  await say('MODIFIED', podOf('u', { ips: ['10.0.0.2'] }))
  t.strictSame(watch.find('u')?.ips, ['10.0.0.2'])
  t.equal(watch.size, 1)
  t.equal(watch.isGone('u'), false)
  await say('DELETED', podOf('u'))
  t.strictSame(told, ['gone u'])
  t.equal(watch.find('u'), undefined)
  t.equal(watch.isGone('u'), true)
  await say('MODIFIED', podOf('u'))
  objects.pods.push(podOf('u'))
  await relist()
  t.equal(watch.find('u'), undefined, 'neither a late line nor an old list brings it back')
  t.equal(watch.size, 0)
  await clock.advanceAsync(9 * 60_000)
  t.equal(watch.isGone('u'), true)
  await clock.advanceAsync(60_000)
  t.equal(watch.isGone('u'), false, 'ten minutes later no token of it is left to refuse')
})

test('a list shows which pods left while nobody watched, in its own scope only', async (t) => {
  const { clock, told, watch, start, objects, api } = setUp(t)
  const other: Scope = { namespace: 'other', serviceAccount: 'sa' }
  const remote = podOf('v', { namespace: 'other' })
  objects.pods = [podOf('u1'), podOf('u2', { name: 'b' }), remote]
  await start([NARROW, other])
  t.equal(watch.size, 3)
  objects.pods = [podOf('u2', { name: 'b' })]
  const held = api.hold()
  api.opened.find(({ path }) => path.includes('/ns/pods'))?.fail(new RelistNeeded())
  await clock.advanceAsync(100)
  t.strictSame(told, [], 'nothing is lost before the list is in')
  held.resolve(listOf(...objects.pods))
  await turn()
  t.strictSame(told, ['gone u1'])
  t.strictSame(
    ['u1', 'u2', 'v'].map((uid) => watch.find(uid)?.uid),
    [undefined, 'u2', 'v'],
  )
})

test('a pod replaced under its name is another pod, even when a list shows it first', async (t) => {
  const { told, watch, start, say, objects, relist } = setUp(t)
  objects.pods = [podOf('u1'), podOf('u2', { name: 'b' })]
  await start()
  await say('DELETED', podOf('u1'))
  await say('ADDED', podOf('u3'))
  t.strictSame(told, ['gone u1'])
  objects.pods = [podOf('u4'), podOf('u2', { name: 'b' })]
  await relist()
  t.strictSame(told, ['gone u1', 'gone u3'])
  t.strictSame(
    ['u1', 'u2', 'u3', 'u4'].map((uid) => watch.find(uid) !== undefined),
    [false, true, false, true],
  )
})

test('any event with the name of a pod and another uid ends the earlier pod', async (t) => {
  for (const type of ['ADDED', 'MODIFIED']) {
    const { told, watch, start, say, objects } = setUp(t)
    objects.pods = [podOf('listed', { name: 'b' })]
    await start()
    await say('ADDED', podOf('u1'))
    await say(type, podOf('u2'))
    t.strictSame(told, ['gone u1'], type)
    t.equal(watch.isGone('u1'), true)
    t.equal(watch.find('u1'), undefined)
    t.equal(watch.find('u2')?.uid, 'u2')
    await say(type, podOf('u3', { name: 'b', account: 'other' }))
    t.strictSame(told, ['gone u1', 'gone listed'], 'one that only a list has shown as well')
    t.equal(watch.size, 2)

    for (const late of ['MODIFIED', 'DELETED']) await say(late, podOf('u1'))
    t.equal(watch.find('u2')?.uid, 'u2', 'a late line of the old pod does not end the new one')
    await say('DELETED', podOf('u2'))
    await say('ADDED', podOf('u4'))
    t.strictSame(told, ['gone u1', 'gone listed', 'gone u1', 'gone u2'])
  }
})

test('a name means one pod only within one namespace and one watch', async (t) => {
  const { api, told, watch, start } = setUp(t)
  await start([
    NARROW,
    { namespace: 'ns', serviceAccount: 'other' },
    { namespace: 'far', serviceAccount: 'sa' },
  ])
  const say = async (path: string, object: unknown) => {
    api.opened
      .find((each) => decodeURIComponent(each.path).includes(path))
      ?.push({
        type: 'ADDED',
        object,
      })
    await turn()
  }
  await say('/far/pods?', podOf('v', { namespace: 'far' }))
  await say('AccountName=other', podOf('new', { account: 'other' }))
  // The order between two watches is not known: this event can be older than the one above.
  await say('/ns/pods?', podOf('old'))
  t.strictSame(told, [])
  t.equal(watch.size, 3)
})

test('the names in memory are those of the pods there are', async (t) => {
  const { told, watch, start, say, objects, relist } = setUp(t)
  objects.pods = [podOf('u1')]
  await start()
  objects.pods = []
  await relist()
  await say('ADDED', podOf('u2'))
  t.strictSame(told, ['gone u1'], 'the list has ended it already')
  objects.pods = [podOf('u3')]
  await relist()
  await say('MODIFIED', podOf('u4'))
  t.strictSame(told, ['gone u1', 'gone u2', 'gone u3'])
  t.equal(watch.size, 1)
})

test('a pod is reported as changed when it loses something that may have admitted a stream', async (t) => {
  const both = ['10.0.0.1', 'fd00::1']
  const changes: readonly (readonly [string, PodChanges, PodChanges, boolean])[] = [
    ['nothing', {}, {}, false],
    ['a first address', { ips: [] }, {}, false],
    ['one more address', {}, { ips: both }, false],
    ['the other order', { ips: both }, { ips: both.toReversed() }, false],
    ['another address', {}, { ips: ['10.0.0.2'] }, true],
    ['one address less', { ips: both }, {}, true],
    ['no address any more', {}, { ips: [] }, true],
    ['another account', {}, { account: 'other' }, true],
  ]
  for (const [name, before, after, isTold] of changes) {
    const { told, start, say } = setUp(t)
    await start([WIDE])
    await say('ADDED', podOf('u', before))
    await say('MODIFIED', podOf('u', after))
    t.strictSame(told, isTold ? ['changed u'] : [], name)
  }
})

test('a pod that is deleted or has ended is reported once, and its time is counted', async (t) => {
  const { clock, told, watch, start, say } = setUp(t)
  await start()
  await say('ADDED', podOf('u'))
  t.equal(watch.terminatingForMs('u'), undefined)
  await say('MODIFIED', podOf('u', { grace: 30 }))
  await clock.advanceAsync(1000)
  await say('MODIFIED', podOf('u', { grace: 10 }))
  t.strictSame(told, ['ending u'])
  t.equal(watch.terminatingForMs('u'), 1000)
  t.equal(watch.find('u')?.terminationSeconds, 10)
  await say('DELETED', podOf('u', { grace: 0 }))
  t.equal(watch.terminatingForMs('u'), undefined)
  for (const phase of ['Succeeded', 'Failed', 'Unknown']) {
    await say('ADDED', podOf(phase, { name: phase, phase }))
  }
  t.strictSame(told, ['ending u', 'gone u', 'ending Succeeded', 'ending Failed'])
})

test('a deleted or re-created ServiceAccount is reported, however it is learned', async (t) => {
  const { told, watch, start, say, objects, relist } = setUp(t)
  objects.accounts = [accountOf('s1')]
  await start()
  t.equal(watch.findAccount('ns', 'sa')?.uid, 's1')
  t.equal(watch.findAccount('other', 'sa'), undefined)
  await say('MODIFIED', accountOf('s1'), 'serviceaccounts')
  t.strictSame(told, [])
  await say('ADDED', accountOf('s2'), 'serviceaccounts')
  t.strictSame(told, ['account gone s1'], 'its name belongs to another')
  t.equal(watch.findAccount('ns', 'sa')?.uid, 's2')
  await say('DELETED', accountOf('s1'), 'serviceaccounts')
  t.equal(watch.findAccount('ns', 'sa')?.uid, 's2', 'a late line does not end the new one')
  await say('DELETED', accountOf('s2'), 'serviceaccounts')
  t.equal(watch.findAccount('ns', 'sa'), undefined)
  t.equal(watch.isGone('s2'), true)
  objects.accounts = [accountOf('s3')]
  await relist()
  objects.accounts = []
  await relist()
  t.equal(watch.isGone('s3'), true)
})

/** Whether a wait is over by now. */
const follow = (wait: Promise<void>) => {
  const state = { isOver: false }
  void wait.then(() => (state.isOver = true))
  return state
}

test('a wait for a pod ends when it has an address, when it is gone, or when the time is up', async (t) => {
  const { clock, watch, start, say } = setUp(t)
  await start()
  // The watches have proven by then that they live.
  await clock.advanceAsync(1000)
  const idle = clock.pending
  const wait = (uid: string) => follow(watch.waitFor(uid, 2000))
  const [seen, again, gone, never] = [wait('u'), wait('u'), wait('v'), wait('w')]
  await say('ADDED', podOf('u', { ips: [] }))
  t.equal(seen.isOver, false, 'a pod without an address yet is not enough')
  await say('MODIFIED', podOf('u'))
  t.strictSame([seen.isOver, again.isOver], [true, true])
  await say('DELETED', podOf('v'))
  t.equal(gone.isOver, true)
  await clock.advanceAsync(1999)
  t.equal(never.isOver, false)
  await clock.advanceAsync(1)
  t.equal(never.isOver, true)
  t.equal(clock.pending, idle, 'no timer is left behind')
  const [known, deleted] = [wait('u'), wait('v')]
  await turn()
  t.strictSame([known.isOver, deleted.isOver], [true, true], 'at once')
})

test('a wait for a ServiceAccount ends when it is shown, when it is gone, or when the time is up', async (t) => {
  const { clock, watch, start, say } = setUp(t)
  await start()
  await clock.advanceAsync(1000)
  const idle = clock.pending
  const wait = (uid: string) => follow(watch.waitForAccount(uid, 2000))
  const [old, created, never] = [wait('s1'), wait('s2'), wait('s3')]
  await say('ADDED', accountOf('s1'), 'serviceaccounts')
  t.strictSame([old.isOver, created.isOver], [true, false])
  const again = wait('s0')
  await say('DELETED', accountOf('s0'), 'serviceaccounts')
  t.equal(again.isOver, true, 'gone')
  await say('ADDED', accountOf('s2'), 'serviceaccounts')
  t.equal(created.isOver, true, 'created again')
  await clock.advanceAsync(2000)
  t.equal(never.isOver, true)
  t.equal(clock.pending, idle, 'no timer is left behind')
})

test('what is no longer watched is forgotten, and not reported as gone', async (t) => {
  const { clock, told, watch, start, objects, newest, api } = setUp(t)
  objects.pods = [podOf('u')]
  objects.accounts = [accountOf('s')]
  await start()
  const before = newest('pods')
  watch.watch([{ namespace: 'other', serviceAccount: 'sa' }])
  t.equal(before?.signal.aborted, true)
  t.equal(watch.find('u'), undefined)
  t.equal(watch.findAccount('ns', 'sa'), undefined)
  t.equal(watch.isGone('u'), false)
  t.strictSame(told, [])
  t.equal(watch.scopes.isTrusted({ namespace: 'other', serviceAccount: 'sa' }), false)
  await clock.advanceAsync(1000)
  t.equal(watch.scopes.isTrusted({ namespace: 'other', serviceAccount: 'sa' }), true)
  t.equal(watch.scopes.isTrusted({ namespace: 'ns', serviceAccount: 'sa' }), false)
  const count = api.opened.length
  watch.watch([{ namespace: 'other', serviceAccount: 'sa' }])
  await turn()
  t.equal(api.opened.length, count, 'a scope that stays is left alone')
})

test('a scope that replaces another finds the pods that left in between', async (t) => {
  for (const [from, to] of [
    [NARROW, WIDE],
    [WIDE, NARROW],
  ] as const) {
    const { told, watch, start, objects } = setUp(t)
    objects.pods = [podOf('u1'), podOf('u2', { name: 'b' })]
    objects.accounts = [accountOf('s')]
    await start([from])
    objects.pods = [podOf('u2', { name: 'b' })]
    objects.accounts = []
    await start([to])
    t.strictSame(told.toSorted(), ['account gone s', 'gone u1'])
    t.equal(watch.find('u2')?.uid, 'u2')
  }
})

test('a namespace is believed by its own watches, and the stalest watch counts', async (t) => {
  const { clock, watch, start, api } = setUp(t)
  const other: Scope = { namespace: 'other', serviceAccount: undefined }
  t.equal(watch.scopes.silentForMs({ namespace: 'ns', serviceAccount: 'sa' }), Infinity)
  await start([NARROW, other])
  await clock.advanceAsync(1200)
  api.opened
    .find(({ path }) => path.includes('/other/pods'))
    ?.push({ type: 'BOOKMARK', object: podOf('') })
  await turn()
  t.equal(watch.scopes.silentForMs({ namespace: 'ns', serviceAccount: 'sa' }), 1200)
  t.equal(watch.scopes.silentForMs({ namespace: 'other', serviceAccount: 'sa' }), 0)
  t.equal(watch.scopes.longestStaleForMs, 0)
  api.refuseWatches(new Error('down'))
  api.opened.find(({ path }) => path.includes('/other/serviceaccounts'))?.fail(new Error('cut'))
  await clock.advanceAsync(300)
  t.equal(watch.scopes.longestStaleForMs, 300)
  t.equal(
    watch.scopes.silentForMs({ namespace: 'other', serviceAccount: 'sa' }),
    300,
    'pods are distinguished from ServiceAccounts',
  )
  t.equal(
    watch.scopes.accountsSilentForMs({ namespace: 'other', serviceAccount: 'sa' }),
    Infinity,
    'whose watch is down',
  )
  t.equal(
    watch.scopes.accountsSilentForMs({ namespace: 'ns', serviceAccount: 'sa' }),
    1500,
    'those of another namespace are still heard',
  )
  t.equal(watch.scopes.silentForMs({ namespace: 'ns', serviceAccount: 'sa' }), 1500)
})

const accountIn = (namespace: string) => ({ namespace, serviceAccount: 'sa' })

test('a scope that cannot be listed takes nothing from the others, and is told once', async (t) => {
  const { api, clock, watch, start, objects, log, synced } = setUp(t)
  const { listOf: listed } = api
  let isForbidden = true
  api.listOf = (path) => {
    if (isForbidden && path.includes('/bad/')) throw new Error('403')
    return listed(path)
  }
  objects.pods = [podOf('u')]
  objects.accounts = [accountOf('s')]
  await start([NARROW, { namespace: 'bad', serviceAccount: undefined }])
  t.equal(watch.scopes.isReady, true, 'every scope was tried, and one is listed')
  await clock.advanceAsync(20_000)
  t.equal(watch.scopes.isTrusted(accountIn('ns')), true)
  t.equal(watch.scopes.isTrusted(accountIn('bad')), false)
  t.equal(watch.scopes.isTrusted(accountIn('unlisted')), false)
  t.equal(watch.scopes.staleForMs(accountIn('unlisted')), Infinity)
  t.equal(watch.scopes.staleForMs(accountIn('ns')), 0)
  t.ok(watch.scopes.staleForMs(accountIn('bad')) > 19_000)
  t.equal(watch.scopes.silentForMs(accountIn('bad')), Infinity)
  t.match(watch.scopes.listStates(), [
    { scope: NARROW, state: 'synced' },
    { scope: { namespace: 'bad' }, state: 'unsynced' },
  ])
  t.equal(
    watch.scopes.longestStaleForMs,
    0,
    'a scope that was never listed is not a watch that is down',
  )
  const down = ['down: pods of namespace bad', 'down: serviceaccounts of namespace bad']
  t.strictSame(log, down, 'not at every try')
  isForbidden = false
  await clock.advanceAsync(15_000)
  t.equal(watch.scopes.isTrusted(accountIn('bad')), true)
  t.match(
    log.filter((line) => line.startsWith('up: ') && line.includes('bad')),
    [/^up: pods of namespace bad, \d+ ms$/, /^up: serviceaccounts of namespace/],
  )
  t.ok(synced.length >= 3, 'who cleans up looks again')
})

test('readiness waits until every scope was tried and one is listed, and then stays', async (t) => {
  const { api, clock, watch, start } = setUp(t)
  const { listOf: listed } = api
  api.listOf = (path) => {
    if (path.includes('/bad/')) throw new Error('403')
    return listed(path)
  }
  const held = api.hold()
  await start([{ namespace: 'bad', serviceAccount: 'sa' }, NARROW])
  t.equal(watch.scopes.isReady, false, 'a list is still awaited')
  held.resolve(listOf())
  await turn()
  await turn()
  t.equal(watch.scopes.isReady, true)
  watch.watch([{ namespace: 'bad', serviceAccount: 'other' }])
  await clock.advanceAsync(1000)
  t.equal(watch.scopes.isReady, true, 'a reload takes it not away')

  const alone = setUp(t)
  alone.api.listOf = () => {
    throw new Error('403')
  }
  await alone.start()
  await alone.clock.advanceAsync(60_000)
  t.equal(alone.watch.scopes.isReady, false, 'nothing could be listed')
})

test('the addresses that are known are those of the pods there are', async (t) => {
  const { watch, objects, start, say, relist } = setUp(t)
  objects.pods = [podOf('u', { ips: ['10.0.0.1', 'fd00::1'] })]
  await start()
  const known = () =>
    ['10.0.0.1', 'fd00::1', 'fd00::2', 'fd00::3'].filter((address) => watch.hasAddress(address))
  t.strictSame(known(), ['10.0.0.1', 'fd00::1'])
  await say('MODIFIED', podOf('u', { ips: ['fd00::2'] }))
  t.strictSame(known(), ['fd00::2'], 'an address that it lost belongs to no pod')
  await say('ADDED', podOf('v', { name: 'b', ips: ['fd00::2', 'fd00::3'] }))
  await say('DELETED', podOf('v', { name: 'b', ips: [] }))
  t.strictSame(known(), ['fd00::2'], 'of two pods with one address the other is left')
  await say('ADDED', podOf('w', { ips: ['fd00::3'] }))
  t.strictSame(known(), ['fd00::3'], 'another pod under the name')
  objects.pods = [podOf('x', { ips: ['fd00::1'] })]
  await relist()
  t.strictSame(known(), ['fd00::1'])
  watch.watch([])
  t.strictSame(known(), [], 'what is watched no more')
})
