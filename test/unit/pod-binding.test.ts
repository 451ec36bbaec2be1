/** A token is good from its live pod and that pod's address alone, and a lifetime ends for a reason. */

import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'tap'
import { findLifetimeEnd, type Life } from '@openclaw-k8s/auth-sidecar/admissions/lifetime.ts'
import type { Belief } from '@openclaw-k8s/auth-sidecar/authz/belief.ts'
import { PodBinding, type BindingRules } from '@openclaw-k8s/auth-sidecar/authz/pod-binding.ts'
import type { Verdict } from '@openclaw-k8s/auth-sidecar/denial.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import type { Claims } from '@openclaw-k8s/auth-sidecar/identity.ts'
import {
  readPod,
  type WatchedAccount,
  type WatchedPod,
} from '@openclaw-k8s/auth-sidecar/kube/pod.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const CLAIMS: Claims = {
  issuer: 'issuer',
  audiences: ['openclaw-gateway'],
  issuedAt: 1000,
  notBefore: 1000,
  expiresAt: 4600,
  tokenId: 'jti',
  namespace: 'ns',
  serviceAccount: 'sa',
  serviceAccountUid: 's',
  podName: 'a',
  podUid: 'u',
  nodeName: 'node-1',
}
const POD: WatchedPod = {
  uid: 'u',
  name: 'a',
  namespace: 'ns',
  serviceAccount: 'sa',
  nodeName: 'node-1',
  ips: ['10.0.0.1', 'fd00::1'],
  phase: 'Running',
  isHostNetwork: false,
  terminationSeconds: undefined,
}
const CALLER = { claims: CLAIMS, address: '10.0.0.1' }

type World = {
  readonly pods?: readonly WatchedPod[]
  readonly gone?: readonly string[]
  readonly accountUid?: string | undefined
  readonly rules?: Partial<BindingRules>
  readonly silentMs?: number
  readonly accountsSilentMs?: number
}

const setUp = (world: World = {}) => {
  const { pods = [POD], gone = [], rules = {}, silentMs = 0, accountsSilentMs = 0 } = world
  const accounts = { uid: 'accountUid' in world ? world.accountUid : 's' }
  const known = new Map(pods.map((pod) => [pod.uid, pod]))
  const clock = new FakeClock()
  const contradicted: string[] = []
  const waits: { readonly uid: string; readonly ms: number; readonly end: () => void }[] = []
  const gets: ({ readonly path: string } & PromiseWithResolvers<WatchedPod | undefined>)[] = []
  const accountGets: ({ readonly path: string } & PromiseWithResolvers<
    WatchedAccount | undefined
  >)[] = []
  const binding = new PodBinding({
    pods: {
      find: (uid) => known.get(uid),
      findAccount: (namespace, name) =>
        accounts.uid === undefined || `${namespace}/${name}` !== 'ns/sa'
          ? undefined
          : { uid: accounts.uid, namespace, name },
      isGone: (uid) => gone.includes(uid),
      waitFor: (uid, ms, address) => {
        const isThere = address === undefined || known.get(uid)?.ips.includes(address) === true
        if ((known.has(uid) && isThere) || gone.includes(uid)) return Promise.resolve()
        return new Promise((resolve) => waits.push({ uid, ms, end: resolve }))
      },
      waitForAccount: (uid, ms) =>
        accounts.uid === uid || gone.includes(uid)
          ? Promise.resolve()
          : new Promise((resolve) => waits.push({ uid, ms, end: resolve })),
      scopes: {
        silentForMs: () => silentMs,
        accountsSilentForMs: () => accountsSilentMs,
        distrustPods: () => void contradicted.push('pods'),
        distrustAccounts: () => void contradicted.push('accounts'),
      },
    },
    rules: () => ({ sourceAddress: 'enforce', allowHostNetwork: false, ...rules }),
    getPod: (namespace, name) => {
      const get = Promise.withResolvers<WatchedPod | undefined>()
      gets.push({ path: `${namespace}/${name}`, ...get })
      return get.promise
    },
    getAccount: (namespace, name) => {
      const get = Promise.withResolvers<WatchedAccount | undefined>()
      accountGets.push({ path: `${namespace}/${name}`, ...get })
      return get.promise
    },
    clock,
  })
  return { binding, known, accounts, waits, gets, accountGets, contradicted, clock }
}

const codeOf = (verdict: Verdict<unknown>) => (verdict.ok ? 'ok' : verdict.code)

/** What the watch may only not show yet: the API server is asked before it refuses. */
const LOOKED_AT_AGAIN = new Set([
  'never seen',
  'no address yet',
  'another address',
  'account created again',
  'account not seen',
])

test('each difference between a pod and its token or a live pod has its own refusal', async (t) => {
  const differing: readonly (readonly [string, World, string])[] = [
    ['as it should be', {}, 'ok'],
    ['pending with an address', { pods: [{ ...POD, phase: 'Pending' }] }, 'ok'],
    ['gone', { gone: ['u'] }, 'pod_deleted'],
    ['never seen', { pods: [] }, 'pod_unconfirmed'],
    ['terminating', { pods: [{ ...POD, terminationSeconds: 30 }] }, 'pod_terminating'],
    ['terminating without grace', { pods: [{ ...POD, terminationSeconds: 0 }] }, 'pod_terminating'],
    ['Succeeded', { pods: [{ ...POD, phase: 'Succeeded' }] }, 'pod_not_running'],
    ['Failed', { pods: [{ ...POD, phase: 'Failed' }] }, 'pod_not_running'],
    ['Unknown', { pods: [{ ...POD, phase: 'Unknown' }] }, 'pod_not_running'],
    ['another name', { pods: [{ ...POD, name: 'b' }] }, 'pod_mismatch'],
    ['another namespace', { pods: [{ ...POD, namespace: 'other' }] }, 'pod_mismatch'],
    ['another account', { pods: [{ ...POD, serviceAccount: 'other' }] }, 'pod_mismatch'],
    ['no address yet', { pods: [{ ...POD, ips: [] }] }, 'pod_unconfirmed'],
    ['another address', { pods: [{ ...POD, ips: ['10.0.0.2'] }] }, 'source_address_mismatch'],
    ['account gone', { gone: ['s'] }, 'service_account_deleted'],
    ['account created again', { accountUid: 's2' }, 'service_account_deleted'],
    ['account not seen', { accountUid: undefined }, 'pod_unconfirmed'],
  ]
  for (const [name, world, code] of differing) {
    const { binding, gets, accountGets } = setUp(world)
    t.equal(codeOf(binding.check(CALLER)), code, name)
    if (LOOKED_AT_AGAIN.has(name)) continue
    t.equal(codeOf(await binding.bind(CALLER, false)), code, `${name}, bound`)
    t.equal(gets.length + accountGets.length, 0, 'the API server is not asked')
  }
})

test('every address of a pod counts, in whatever form it is written, and no other', async (t) => {
  const check = (ips: readonly string[], address: string) => {
    const read = readPod({
      metadata: { uid: 'u', name: 'a', namespace: 'ns' },
      spec: {},
      status: { podIPs: ips.map((ip) => ({ ip })) },
    })
    const pods = [{ ...POD, ips: read.ips }]
    return codeOf(setUp({ pods }).binding.check({ claims: CLAIMS, address }))
  }
  t.equal(check(['10.0.0.1', 'fd00::1'], 'fd00::1'), 'ok')
  t.equal(check(['::ffff:10.0.0.1'], '10.0.0.1'), 'ok')
  t.equal(check(['FD00::1'], 'fd00::1'), 'ok')
  t.equal(check(['10.0.0.1', 'fd00::1'], 'fd00::2'), 'source_address_mismatch')
  t.equal(check(['10.0.0.11'], '10.0.0.1'), 'source_address_mismatch')
  t.equal(check(['nonsense'], ''), 'pod_unconfirmed')
})

test('an address that now belongs to another pod does not carry the old token', async (t) => {
  const { binding, known } = setUp()
  known.set('u', { ...POD, ips: ['10.0.0.9'] })
  known.set('v', { ...POD, uid: 'v', name: 'b' })
  t.equal(codeOf(binding.check(CALLER)), 'source_address_mismatch')
})

test('a pod at another address is looked up, and let in once the watch shows that address', async (t) => {
  const moved = { ...POD, ips: ['10.0.0.2'] }
  const at = (address: string) => ({ claims: CLAIMS, address })
  const { binding, known, gets, waits, contradicted, clock } = setUp()
  const [one, two] = [binding.bind(at('10.0.0.2'), false), binding.bind(at('10.0.0.2'), false)]
  await turn()
  const paths = gets.map(({ path }) => path)
  t.strictSame(paths, ['ns/a'], 'they share the GET')
  gets[0]?.resolve(moved)
  await turn()
  t.equal(waits.length, 2, 'the GET admits nobody')
  t.equal(waits[0]?.ms, 2000)
  known.set('u', moved)
  for (const { end } of waits) end()
  t.strictSame([codeOf(await one), codeOf(await two)], ['ok', 'ok'])
  t.strictSame(contradicted, [])

  clock.advance(2001)
  const stolen = binding.bind(at('10.0.0.9'), false)
  await turn()
  gets[1]?.resolve(moved)
  t.equal(codeOf(await stolen), 'source_address_mismatch')
})

test('an earlier answer refuses nobody for good, and a token that is used elsewhere costs one GET in two seconds', async (t) => {
  const { binding, gets, waits, clock } = setUp()
  const at = (address: string) => binding.bind({ claims: CLAIMS, address }, false)
  const first = at('10.0.0.2')
  await turn()
  gets[0]?.resolve(POD)
  t.equal(codeOf(await first), 'source_address_mismatch')

  clock.advance(500)
  const unconfirmed = { code: 'source_address_unconfirmed' }
  t.equal(codeOf(await at('10.0.0.2')), 'source_address_mismatch', 'the same again')
  await t.rejects(at('10.0.0.9'), unconfirmed, 'perhaps the pod has moved since: it comes again')
  t.equal(gets.length, 1, 'nobody asks again')
  t.equal(waits.length, 0, 'and nobody waits in a place of the pod')
  t.ok((await at('10.0.0.1')).ok, 'the pod itself is not in question')

  clock.advance(1501)
  const [moved, stolen] = [at('10.0.0.2'), at('10.0.0.9')]
  await turn()
  t.equal(gets.length, 2, 'all share the next one')
  gets[1]?.resolve({ ...POD, ips: ['10.0.0.2'] })
  t.equal(codeOf(await stolen), 'source_address_mismatch')
  await turn()
  waits[0]?.end()
  await turn()
  waits[1]?.end()
  await t.rejects(moved, { code: 'pod_unconfirmed' }, 'the watch has to show it')
})

test('an answer that was asked for before a worker came does not refuse it', async (t) => {
  for (const isAccount of [false, true]) {
    const world = isAccount ? setUp({ accountUid: 's0' }) : setUp()
    const { binding, known, accounts, gets, accountGets, waits, clock } = world
    const pending = isAccount ? accountGets : gets
    const resolve = (at: number, isNew: boolean) =>
      isAccount
        ? accountGets[at]?.resolve({ ...LIVE_ACCOUNT, uid: isNew ? 's' : 's0' })
        : gets[at]?.resolve({ ...POD, ips: [isNew ? '10.0.0.2' : '10.0.0.1'] })
    const caller = { claims: CLAIMS, address: isAccount ? '10.0.0.1' : '10.0.0.2' }
    const early = binding.bind(caller, false)
    await turn()
    clock.advance(10)
    const late = binding.bind(caller, false)
    await turn()
    t.equal(pending.length, 1)
    resolve(0, false)
    const code = isAccount ? 'service_account_deleted' : 'source_address_mismatch'
    t.equal(codeOf(await early), code, 'the answer is its own')
    await turn()
    t.equal(pending.length, 2)
    resolve(1, true)
    await turn()
    if (isAccount) accounts.uid = 's'
    else known.set('u', { ...POD, ips: ['10.0.0.2'] })
    waits.at(-1)?.end()
    t.equal(codeOf(await late), 'ok')
  }
})

test('a watch that goes on to show an old address is ended, and a fault refuses nobody', async (t) => {
  const { binding, gets, waits, contradicted, clock } = setUp()
  const caller = { claims: CLAIMS, address: '10.0.0.2' }
  const waiting = binding.bind(caller, false)
  await turn()
  gets[0]?.resolve({ ...POD, ips: ['10.0.0.2'] })
  await turn()
  waits[0]?.end()
  await turn()
  t.strictSame(contradicted, ['pods'])
  waits[1]?.end()
  await t.rejects(waiting, {
    code: 'pod_unconfirmed',
    message: "The watch is behind: the API server shows pod ns/a at the worker's address.",
  })

  clock.advance(2001)
  for (const [said, code] of [
    ['pod_unconfirmed', 'source_address_unconfirmed'],
    ['own_credential_refused', 'own_credential_refused'],
  ] as const) {
    const unanswered = binding.bind(caller, true)
    await turn()
    gets.at(-1)?.reject(new Fault(said, 'nobody answers'))
    await t.rejects(unanswered, { code })
  }
})

test('while no watch is open, the API server alone refuses, and nobody admits', async (t) => {
  const caller = { claims: CLAIMS, address: '10.0.0.2' }
  const stolen = setUp({ silentMs: Infinity })
  const refused = stolen.binding.bind(caller, true)
  await turn()
  stolen.gets[0]?.resolve(POD)
  t.equal(codeOf(await refused), 'source_address_mismatch')

  const deleted = setUp({ silentMs: Infinity })
  const gone = deleted.binding.bind(caller, true)
  await turn()
  deleted.gets[0]?.resolve(undefined)
  t.equal(codeOf(await gone), 'pod_not_found', 'what the API server says, not what the watch said')

  const moved = setUp({ silentMs: Infinity })
  const waiting = moved.binding.bind(caller, true)
  await turn()
  moved.gets[0]?.resolve({ ...POD, ips: ['10.0.0.2'] })
  await turn()
  moved.waits[0]?.end()
  await turn()
  moved.waits[1]?.end()
  await t.rejects(waiting, { code: 'pod_unconfirmed' })
})

test('a ServiceAccount that was created again is let in once the watch shows it, and refused by no old word', async (t) => {
  const worlds: readonly (readonly [string, World])[] = [
    ['the earlier one is shown', { accountUid: 's0' }],
    ['none is shown', { accountUid: undefined }],
    ['a silent watch', { accountUid: 's0', accountsSilentMs: 9000 }],
    ['no watch is open', { accountUid: 's0', accountsSilentMs: Infinity }],
  ]
  for (const [name, world] of worlds) {
    const heal = setUp(world)
    const bound = heal.binding.bind(CALLER, false)
    await turn()
    t.match(heal.accountGets, [{ path: 'ns/sa' }], name)
    heal.accountGets[0]?.resolve(LIVE_ACCOUNT)
    await turn()
    t.match(heal.waits, [{ uid: 's', ms: 2000 }], 'the answer admits nobody')
    heal.accounts.uid = 's'
    heal.waits[0]?.end()
    await turn()
    // Without a watch only an answer of now counts.
    heal.accountGets[1]?.resolve(LIVE_ACCOUNT)
    t.equal(codeOf(await bound), 'ok', name)
    t.strictSame(heal.contradicted, [])

    const behind = setUp(world)
    const waiting = behind.binding.bind(CALLER, true)
    await turn()
    behind.accountGets[0]?.resolve(LIVE_ACCOUNT)
    await turn()
    behind.waits[0]?.end()
    await turn()
    t.strictSame(behind.contradicted, ['accounts'], 'the watch is ended')
    behind.waits[1]?.end()
    await t.rejects(waiting, {
      code: 'pod_unconfirmed',
      message:
        'The watch is behind: the API server shows ServiceAccount ns/sa with the uid of the token.',
    })

    for (const account of [undefined, { ...LIVE_ACCOUNT, uid: 's2' }]) {
      const other = setUp(world)
      const refused = other.binding.bind(CALLER, true)
      await turn()
      other.accountGets[0]?.resolve(account)
      t.equal(codeOf(await refused), 'service_account_deleted', name)
    }

    const down = setUp(world)
    const unanswered = down.binding.bind(CALLER, true)
    await turn()
    down.accountGets[0]?.reject(new Fault('pod_unconfirmed', 'down'))
    await t.rejects(
      unanswered,
      { code: 'pod_unconfirmed' },
      'not even where an outage is tolerated',
    )
  }
})

test('a watch that stopped at a pod without an address does not keep the pod out', async (t) => {
  const { binding, known, gets, waits, contradicted } = setUp({ pods: [{ ...POD, ips: [] }] })
  const waiting = binding.bind(CALLER, false)
  await turn()
  gets[0]?.resolve(POD)
  await turn()
  waits[0]?.end()
  await turn()
  t.strictSame(contradicted, ['pods'], 'the watch is ended')
  known.set('u', POD)
  waits[1]?.end()
  t.equal(codeOf(await waiting), 'ok')

  const starting = setUp({ pods: [{ ...POD, ips: [] }] })
  const refused = starting.binding.bind(CALLER, false)
  await turn()
  starting.gets[0]?.resolve({ ...POD, ips: [] })
  t.equal(codeOf(await refused), 'pod_unconfirmed', 'the API server shows none either')
  t.strictSame(starting.contradicted, [])
})

test('host network and hidden sources are let in only where that was chosen', async (t) => {
  const host = { ...POD, isHostNetwork: true, ips: ['192.168.0.1'] }
  const check = (pod: WatchedPod, address: string, rules: Partial<BindingRules> = {}) =>
    codeOf(setUp({ pods: [pod], rules }).binding.check({ claims: CLAIMS, address }))
  t.equal(check(host, '192.168.0.1'), 'host_network_not_allowed')
  t.equal(check(host, '192.168.0.1', { allowHostNetwork: true }), 'ok')
  t.equal(check(host, '192.168.0.2', { allowHostNetwork: true }), 'source_address_mismatch')
  t.equal(check(POD, '10.9.9.9', { sourceAddress: 'report' }), 'ok')
  t.equal(check({ ...POD, ips: [] }, '10.9.9.9', { sourceAddress: 'report' }), 'ok')
  const terminating = { ...POD, terminationSeconds: 1 }
  t.equal(check(terminating, '10.9.9.9', { sourceAddress: 'report' }), 'pod_terminating')
  t.equal(check(host, '192.168.0.1', { sourceAddress: 'report' }), 'host_network_not_allowed')
})

test('an unseen pod is waited for, and then a GET can refuse but never admit', async (t) => {
  const decide = async (pod: WatchedPod | undefined) => {
    const { binding, waits, gets, contradicted } = setUp({ pods: [] })
    const bound = binding.bind(CALLER, true)
    t.match(waits, [{ uid: 'u', ms: 2000 }])
    t.equal(gets.length, 0, 'not before the wait is over')
    waits[0]?.end()
    await turn()
    t.match(gets, [{ path: 'ns/a' }])
    gets[0]?.resolve(pod)
    await turn()
    waits[1]?.end()
    const code = await bound.then(codeOf, (fault: Fault) => fault.code)
    t.strictSame(contradicted, pod === POD ? ['pods'] : [], 'only a watch that is behind is ended')
    return code
  }
  t.equal(await decide(undefined), 'pod_not_found')
  t.equal(await decide({ ...POD, uid: 'another' }), 'pod_not_found')
  t.equal(await decide(POD), 'pod_unconfirmed', 'the watch has to show it')
  const refusals: readonly (readonly [Partial<WatchedPod>, string])[] = [
    [{ serviceAccount: 'other' }, 'pod_mismatch'],
    [{ terminationSeconds: 30 }, 'pod_terminating'],
    [{ phase: 'Failed' }, 'pod_not_running'],
    [{ isHostNetwork: true }, 'host_network_not_allowed'],
    [{ ips: ['10.0.0.7'] }, 'source_address_mismatch'],
    [{ ips: [] }, 'pod_unconfirmed'],
  ]
  for (const [change, code] of refusals) t.equal(await decide({ ...POD, ...change }), code)

  const down = setUp({ pods: [] })
  const bound = down.binding.bind(CALLER, true)
  down.waits[0]?.end()
  await turn()
  down.gets[0]?.reject(new Fault('pod_unconfirmed', 'down'))
  await t.rejects(bound, { code: 'pod_unconfirmed' }, 'not even where an outage is tolerated')

  const behind = setUp({ pods: [] })
  const shown = behind.binding.bind(CALLER, false)
  behind.waits[0]?.end()
  await turn()
  behind.gets[0]?.resolve(POD)
  await turn()
  t.match(behind.waits[1], { uid: 'u', ms: 2000 })
  behind.known.set('u', POD)
  behind.waits[1]?.end()
  t.equal(codeOf(await shown), 'ok', 'the next watch shows it')

  const late = setUp({ pods: [] })
  const found = late.binding.bind(CALLER, false)
  late.known.set('u', POD)
  late.waits[0]?.end()
  t.equal(codeOf(await found), 'ok', 'the watch has shown it in time')
  t.equal(late.gets.length, 0)
})

test('a silent watch is confirmed by one GET, which all waiting callers share', async (t) => {
  const heard = setUp({ silentMs: 2000 })
  t.equal(codeOf(await heard.binding.bind(CALLER, false)), 'ok')
  t.equal(heard.gets.length, 0)

  const { binding, gets } = setUp({ silentMs: 2001 })
  const several = [1, 2, 3].map(() => binding.bind(CALLER, false))
  await turn()
  t.equal(gets.length, 1)
  gets[0]?.resolve(POD)
  t.strictSame((await Promise.all(several)).map(codeOf), ['ok', 'ok', 'ok'])
})

const OLD: Belief = { pod: -1, account: -1 }

/** Until when what a binding relied on is believed: the pod, the ServiceAccount. */
const untilOf = async (bound: Promise<Verdict<Belief>>): Promise<readonly number[]> => {
  const verdict = await bound
  if (!verdict.ok) throw new Error(verdict.code)
  return [verdict.value.pod, verdict.value.account]
}

test('what a binding relied on is believed for two seconds: the last word of a watch, or an answer', async (t) => {
  const heard = setUp({ silentMs: 500, accountsSilentMs: 1500 })
  t.strictSame(await untilOf(heard.binding.bind(CALLER, false)), [1500, 500])

  const { binding, gets, accountGets, clock } = setUp({ silentMs: 9000, accountsSilentMs: 9000 })
  const asked = binding.bind(CALLER, false)
  await turn()
  clock.advance(300)
  gets[0]?.resolve(POD)
  accountGets[0]?.resolve(LIVE_ACCOUNT)
  t.strictSame(await untilOf(asked), [2300, 2300], 'a new answer counts from now on')
  clock.advance(700)
  const later = await untilOf(binding.bind(CALLER, false))
  t.strictSame(later, [2000, 2000], 'and later from when it was asked for')

  const away = setUp({ silentMs: Infinity })
  const tolerated = away.binding.bind(CALLER, true)
  await turn()
  away.gets[0]?.reject(new Fault('pod_unconfirmed', 'down'))
  t.strictSame(await untilOf(tolerated), [2000, 2000], 'an outage is not asked about again at once')
})

test('a word counts from when it came, however long the other one takes, and only the old one is asked for again', async (t) => {
  for (const slow of ['pod', 'account'] as const) {
    const { binding, gets, accountGets, clock } = setUp({ silentMs: 9000, accountsSilentMs: 9000 })
    const answer = (which: 'pod' | 'account') =>
      which === 'pod' ? gets.at(-1)?.resolve(POD) : accountGets.at(-1)?.resolve(LIVE_ACCOUNT)
    const quick = slow === 'pod' ? 'account' : 'pod'
    const bound = binding.bind(CALLER, false)
    await turn()
    answer(quick)
    await turn()
    clock.advance(3000)
    answer(slow)
    const verdict = await bound
    if (!verdict.ok) throw new Error(verdict.code)
    t.same(verdict.value, { [quick]: 2000, [slow]: 5000 })
    t.ok(binding.isOutdated(CALLER, verdict.value))

    const confirmed = binding.confirm(CALLER, verdict.value, false)
    await turn()
    answer(quick)
    t.same(await confirmed, {
      ok: true,
      value: { [quick]: 5000, [slow]: 5000 },
    })
    t.strictSame([gets.length, accountGets.length], slow === 'pod' ? [1, 2] : [2, 1])
  }

  const { binding, accountGets, clock } = setUp({ accountsSilentMs: 9000 })
  const bound = binding.bind(CALLER, false)
  await turn()
  clock.advance(3000)
  accountGets[0]?.resolve(LIVE_ACCOUNT)
  t.strictSame(await untilOf(bound), [2000, 5000], 'so does the last word of a watch')
})

test('a binding is outdated once two seconds are over and a watch is silent', async (t) => {
  const isOutdated = (world: World, ms: number, believedUntil = { pod: 1000, account: 1000 }) => {
    const { binding, clock } = setUp(world)
    clock.advance(ms)
    return binding.isOutdated(CALLER, believedUntil)
  }
  t.equal(isOutdated({ silentMs: 9000, accountsSilentMs: 9000 }, 1000), false)
  t.equal(isOutdated({ silentMs: 2001 }, 1001), true)
  t.equal(isOutdated({ accountsSilentMs: 2001 }, 1001), true)
  t.equal(isOutdated({ silentMs: 2000, accountsSilentMs: 2000 }, 1001), false, 'both are heard')
  const silent = { silentMs: 2001, accountsSilentMs: 2001 }
  t.equal(isOutdated(silent, 1001, { pod: 1000, account: 1001 }), true)
  t.equal(isOutdated(silent, 1001, { pod: 1001, account: 1000 }), true)
  t.equal(isOutdated({ silentMs: 2001 }, 1001, { pod: 1001, account: 1000 }), false)
  t.equal(isOutdated({ accountsSilentMs: 2001 }, 1001, { pod: 1000, account: 1001 }), false)
})

test('an outdated binding is confirmed by a new answer, which refuses as the first one would', async (t) => {
  const { binding, gets, accountGets, contradicted } = setUp({ silentMs: 2001 })
  const confirm = async (pod: WatchedPod | undefined) => {
    const confirmed = binding.confirm(CALLER, OLD, false)
    await turn()
    gets.at(-1)?.resolve(pod)
    return confirmed
  }
  t.equal(codeOf(await confirm(undefined)), 'pod_not_found')
  t.strictSame(contradicted, ['pods'])
  t.equal(codeOf(await confirm(POD)), 'ok')
  t.strictSame([gets.length, accountGets.length], [2, 0], 'the accounts are heard of')
  t.equal(codeOf(await binding.confirm(CALLER, OLD, false)), 'ok')
  t.equal(gets.length, 2, 'an answer to another worker of the pod will do')

  const away = setUp({ silentMs: Infinity })
  const outage = new Fault('pod_unconfirmed', 'down')
  for (const isTolerated of [true, false]) {
    const confirmed = away.binding.confirm(CALLER, OLD, isTolerated)
    await turn()
    away.gets.at(-1)?.reject(outage)
    if (isTolerated) t.equal(codeOf(await confirmed), 'ok')
    else await t.rejects(confirmed, outage)
  }
})

test('of two answers that come long after each other the older one is asked for again, and no third time', async (t) => {
  const { binding, gets, accountGets, clock } = setUp({ silentMs: 9000, accountsSilentMs: 9000 })
  const confirmed = binding.confirm(CALLER, OLD, false)
  await turn()
  gets[0]?.resolve(POD)
  await turn()
  clock.advance(2001)
  accountGets[0]?.resolve(LIVE_ACCOUNT)
  await turn()
  t.strictSame([gets.length, accountGets.length], [2, 1])
  clock.advance(2001)
  gets[1]?.resolve(POD)
  t.strictSame(await untilOf(confirmed), [6002, 4001])

  const gone = setUp({ silentMs: 9000, accountsSilentMs: 9000 })
  const refused = gone.binding.confirm(CALLER, OLD, false)
  await turn()
  gone.gets[0]?.resolve(POD)
  await turn()
  gone.clock.advance(2001)
  gone.accountGets[0]?.resolve(LIVE_ACCOUNT)
  await turn()
  gone.gets[1]?.resolve(undefined)
  t.equal(codeOf(await refused), 'pod_not_found')
})

test('an answer that contradicts the watch ends the watch that is behind', async (t) => {
  const pods = setUp({ silentMs: 2001 })
  const bound = pods.binding.bind(CALLER, false)
  await turn()
  pods.gets[0]?.resolve(undefined)
  t.equal(codeOf(await bound), 'pod_not_found')
  t.strictSame(pods.contradicted, ['pods'])

  const accounts = setUp({ accountsSilentMs: 2001 })
  const other = accounts.binding.bind(CALLER, false)
  await turn()
  accounts.accountGets[0]?.resolve(undefined)
  t.equal(codeOf(await other), 'service_account_deleted')
  t.strictSame(accounts.contradicted, ['accounts'])
})

test('with an open watch a pod needs no second GET while the first is younger than the allowed silence of a watch', async (t) => {
  const { binding, known, gets, clock } = setUp({ silentMs: 60_000 })
  const bind = async (caller = CALLER) => {
    const bound = binding.bind(caller, false)
    await turn()
    return { bound, asked: gets.length }
  }
  const first = await bind()
  clock.advance(500)
  gets[0]?.resolve(POD)
  t.equal(codeOf(await first.bound), 'ok')

  clock.advance(1500)
  const second = await bind()
  t.equal(second.asked, 1, 'two seconds after it was asked')
  t.equal(codeOf(await second.bound), 'ok')

  const other = await bind({ claims: { ...CLAIMS, podName: 'b' }, address: '10.0.0.1' })
  t.equal(codeOf(await other.bound), 'pod_mismatch', 'what was said is judged for each caller')

  known.set('u', { ...POD, ips: ['10.0.0.1', '10.0.0.5'] })
  const moved = await bind({ claims: CLAIMS, address: '10.0.0.5' })
  t.equal(moved.asked, 2, 'nobody is refused by what was said earlier')
  gets[1]?.resolve({ ...POD, ips: ['10.0.0.5'] })
  t.equal(codeOf(await moved.bound), 'ok')
  known.set('u', { ...POD, terminationSeconds: 30 })
  t.equal(codeOf(await (await bind()).bound), 'pod_terminating', 'the watch may always refuse')
  known.set('u', { ...POD, ips: ['10.0.0.5'] })

  clock.advance(2001)
  const late = await bind({ claims: CLAIMS, address: '10.0.0.5' })
  t.equal(late.asked, 3)
  gets[2]?.resolve(undefined)
  t.equal(codeOf(await late.bound), 'pod_not_found')
  const failing = await bind({ claims: CLAIMS, address: '10.0.0.5' })
  t.equal(failing.asked, 4, 'that is not kept')
  gets[3]?.reject(new Fault('pod_unconfirmed', 'down'))
  await t.rejects(failing.bound)
  t.equal((await bind({ claims: CLAIMS, address: '10.0.0.5' })).asked, 5, 'nor is a failure')

  const cut = setUp({ silentMs: Infinity })
  for (const asked of [1, 2]) {
    const bound = cut.binding.bind(CALLER, false)
    await turn()
    t.equal(cut.gets.length, asked, 'without a watch only what is said now counts')
    cut.gets.at(-1)?.resolve(POD)
    t.equal(codeOf(await bound), 'ok')
  }
})

test('the answer of the GET overrides what a silent watch still shows', async (t) => {
  const live: readonly (readonly [WatchedPod | undefined, string])[] = [
    [POD, 'ok'],
    [undefined, 'pod_not_found'],
    [{ ...POD, uid: 'v' }, 'pod_not_found'],
    [{ ...POD, terminationSeconds: 30 }, 'pod_terminating'],
    [{ ...POD, phase: 'Failed' }, 'pod_not_running'],
    [{ ...POD, ips: ['10.0.0.7'] }, 'source_address_mismatch'],
  ]
  for (const [pod, code] of live) {
    const { binding, gets } = setUp({ silentMs: Infinity })
    const bound = binding.bind(CALLER, true)
    await turn()
    gets[0]?.resolve(pod)
    t.equal(codeOf(await bound), code)
  }
  const { binding, gets } = setUp({ silentMs: Infinity, gone: ['u'] })
  t.equal(codeOf(await binding.bind(CALLER, true)), 'pod_deleted')
  t.equal(gets.length, 0, 'who is known to be gone is not asked for')
})

const LIVE_ACCOUNT: WatchedAccount = { uid: 's', namespace: 'ns', name: 'sa' }

test('a ServiceAccount whose watch is silent is looked up once for all of its pods', async (t) => {
  const heard = setUp({ accountsSilentMs: 2000, silentMs: 2000 })
  t.equal(codeOf(await heard.binding.bind(CALLER, false)), 'ok')
  t.equal(heard.accountGets.length, 0)

  const { binding, known, gets, accountGets, clock } = setUp({ accountsSilentMs: 2001 })
  known.set('v', { ...POD, uid: 'v', name: 'b' })
  const other = { claims: { ...CLAIMS, podUid: 'v', podName: 'b' }, address: '10.0.0.1' }
  const several = [CALLER, other, CALLER].map((caller) => binding.bind(caller, false))
  await turn()
  t.match(accountGets, [{ path: 'ns/sa' }])
  t.equal(gets.length, 0, 'the pods are heard of')
  accountGets[0]?.resolve(LIVE_ACCOUNT)
  t.strictSame((await Promise.all(several)).map(codeOf), ['ok', 'ok', 'ok'])

  clock.advance(2000)
  t.equal(codeOf(await binding.bind(other, false)), 'ok', 'for two seconds')
  t.equal(accountGets.length, 1)
  clock.advance(1)
  const late = binding.bind(other, false)
  await turn()
  t.equal(accountGets.length, 2)
  accountGets[1]?.resolve(undefined)
  t.equal(codeOf(await late), 'service_account_deleted')
  const again = binding.bind(CALLER, false)
  await turn()
  t.equal(accountGets.length, 3, 'the removal is not remembered')
  accountGets[2]?.resolve(LIVE_ACCOUNT)
  t.equal(codeOf(await again), 'ok')
})

test('a fresh answer about a ServiceAccount overrides what a silent watch still shows', async (t) => {
  const live: readonly (readonly [WatchedAccount | undefined, string])[] = [
    [LIVE_ACCOUNT, 'ok'],
    [undefined, 'service_account_deleted'],
    [{ ...LIVE_ACCOUNT, uid: 's2' }, 'service_account_deleted'],
  ]
  for (const [account, code] of live) {
    const { binding, accountGets } = setUp({ accountsSilentMs: Infinity })
    const bound = binding.bind(CALLER, true)
    await turn()
    accountGets[0]?.resolve(account)
    t.equal(codeOf(await bound), code)
  }
  // Both are silent: either answer can refuse, and an outage of one does not hide the refusal of the other.
  const both = async (
    pod: WatchedPod | Fault | undefined,
    account: unknown,
    isTolerated = true,
  ) => {
    const { binding, gets, accountGets } = setUp({ silentMs: 9000, accountsSilentMs: 9000 })
    const bound = binding.bind(CALLER, isTolerated)
    await turn()
    t.strictSame([gets.length, accountGets.length], [1, 1], 'at the same time')
    if (pod instanceof Fault) gets[0]?.reject(pod)
    else gets[0]?.resolve(pod)
    if (account instanceof Fault) accountGets[0]?.reject(account)
    else accountGets[0]?.resolve(account as WatchedAccount | undefined)
    return bound.then(codeOf, (error: unknown) => error)
  }
  const outage = new Fault('pod_unconfirmed', 'down')
  t.equal(await both(POD, LIVE_ACCOUNT), 'ok')
  t.equal(await both(POD, undefined), 'service_account_deleted')
  t.equal(await both(undefined, LIVE_ACCOUNT), 'pod_not_found')
  t.equal(await both(outage, undefined), 'service_account_deleted')
  t.equal(await both(undefined, outage), 'pod_not_found')
  t.equal(await both(outage, outage), 'ok', 'both were last seen alive')
  t.equal(await both(POD, outage), 'ok')
  t.equal(await both(POD, outage, false), outage)
  const refused = new Fault('own_credential_refused', 'RBAC')
  t.equal(await both(POD, refused), refused)
})

test('only an outage is tolerated, and only for those for whom the policy allows it', async (t) => {
  const bind = async (error: unknown, isTolerated: boolean) => {
    const { binding, gets } = setUp({ silentMs: Infinity })
    const bound = binding.bind(CALLER, isTolerated)
    await turn()
    gets[0]?.reject(error)
    return bound.then(codeOf, (reason: unknown) => reason)
  }
  const outage = new Fault('pod_unconfirmed', 'down')
  t.equal(await bind(outage, true), 'ok', 'the watch last showed it alive')
  t.equal(await bind(outage, false), outage)
  const refused = new Fault('own_credential_refused', 'RBAC')
  t.equal(await bind(refused, true), refused)
  const bug = new Error('bug')
  t.equal(await bind(bug, true), bug)
})

const LIFE: Life = {
  claims: CLAIMS,
  admittedAgoMs: 0,
  termination: undefined,
  watchStaleMs: 0,
  nowMs: CLAIMS.expiresAt * 1000 - 1,
}
const RULES = {
  onTokenExpiry: 'keep-while-pod-lives',
  maxSessionAgeMs: 0,
  terminationGraceMs: 30_000,
  maxWatchStalenessMs: 300_000,
} as const

test('a stream ends in the exact millisecond of its reason, and for nothing else', async (t) => {
  const expired = { nowMs: LIFE.nowMs + 1 }
  const ends = (life: Partial<Life>, rules: Partial<Parameters<typeof findLifetimeEnd>[1]> = {}) =>
    findLifetimeEnd({ ...LIFE, ...life }, { ...RULES, ...rules })
  t.equal(ends({ admittedAgoMs: 1e12, watchStaleMs: 1e12 }), undefined, 'no limit was set')
  t.equal(ends(expired), undefined, 'the pod lives')
  t.equal(ends({}, { onTokenExpiry: 'close' }), undefined)
  t.equal(ends(expired, { onTokenExpiry: 'close' }), 'token_expired')

  t.equal(ends({ ...expired, watchStaleMs: 300_000 }), undefined)
  t.equal(ends({ ...expired, watchStaleMs: 300_001 }), 'watch_stale')
  t.equal(ends({ watchStaleMs: 300_001 }), undefined, 'a good token carries its stream')

  t.equal(ends({ admittedAgoMs: 999 }, { maxSessionAgeMs: 1000 }), undefined)
  t.equal(ends({ admittedAgoMs: 1000 }, { maxSessionAgeMs: 1000 }), 'session_age_exceeded')

  const terminating = (agoMs: number, graceMs: number) => ends({ termination: { agoMs, graceMs } })
  t.equal(terminating(9999, 10_000), undefined)
  t.equal(terminating(10_000, 10_000), 'pod_terminating', "the pod's own grace is the shorter")
  t.equal(terminating(29_999, 60_000), undefined)
  t.equal(terminating(30_000, 60_000), 'pod_terminating', 'ours is the shorter')
  t.equal(terminating(0, 0), 'pod_terminating')
})
