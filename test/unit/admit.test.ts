/** Behind a silent watch a gateway that takes its time lets nobody in on an old word. */

import { test } from 'tap'
import { AdmissionRegistry } from '@openclaw-k8s/auth-sidecar/admissions/registry.ts'
import type { Source } from '@openclaw-k8s/auth-sidecar/authn/authenticator.ts'
import { createPolicy } from '@openclaw-k8s/auth-sidecar/authz/policy.ts'
import { denied, granted, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import type { Handshake } from '@openclaw-k8s/auth-sidecar/dialect/dialect.ts'
import { admit, type AdmitRequest, type Stages } from '@openclaw-k8s/auth-sidecar/edge/admit.ts'
import type { Worker } from '@openclaw-k8s/auth-sidecar/edge/worker.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import { identityOf } from '@openclaw-k8s/auth-sidecar/identity.ts'
import type { GatewayConnection } from '@openclaw-k8s/auth-sidecar/tunnel/dial.ts'
import { CLAIMS } from '../kit/claims.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const ADDRESS = '10.244.1.1'
const BELIEVED_UNTIL = { pod: 2000, account: 2000 }

const policyFor = (serviceAccount: string) =>
  createPolicy([
    {
      namespace: 'openclaw',
      serviceAccount,
      allowedRoles: ['node'],
      allowedCommands: ['*'],
      allowSessionHosting: false,
    },
  ])

type Line = {
  readonly registry: AdmissionRegistry
  readonly worker: { onGone: (code: Code) => void }
  readonly socket: { destroyed: boolean }
  readonly state: {
    isOutdated: boolean
    allowed: string
    confirmed: Code | undefined
    bound: Code | undefined
    judged: Code | undefined
    told: Code | undefined
    isStanding: boolean
  }
  readonly released: unknown[]
  readonly asked: boolean[]
}

/** A line up to its gateway; `whileAsked` is called in the middle of the last question. */
const createLine = (whileAsked: (line: Line) => void = () => {}, source: Source = 'review') => {
  const registry = new AdmissionRegistry({
    streamsMax: 10,
    streamsPerPodMax: 2,
    clock: new FakeClock(),
  })
  const socket = { destroyed: false, destroy: () => void (socket.destroyed = true) }
  const worker = {
    address: ADDRESS,
    token: 'a token',
    abortCode: undefined,
    onGone: (_code: Code) => {},
  }
  const line: Line = {
    registry,
    worker,
    socket,
    state: {
      isOutdated: true,
      allowed: 'worker',
      confirmed: undefined,
      bound: undefined,
      judged: undefined,
      told: undefined,
      isStanding: true,
    },
    released: [],
    asked: [],
  }
  const { state, released, asked } = line
  const stages: Stages = {
    precheck: {
      read: () => granted(CLAIMS),
      renewIssuer: async () => 'issuer_not_allowed',
      judge: () => (state.judged === undefined ? granted(CLAIMS) : denied(state.judged)),
      verify: async () => granted('verified'),
    },
    registry,
    authenticator: {
      authenticate: async () => granted({ identity: identityOf(CLAIMS), source }),
      isStanding: () => state.isStanding,
    },
    binding: {
      bind: async () => granted(BELIEVED_UNTIL),
      isOutdated: (_caller, believedUntil) => believedUntil === BELIEVED_UNTIL && state.isOutdated,
      async confirm(_caller, believedUntil, isOutageTolerated) {
        if (believedUntil !== BELIEVED_UNTIL) throw new Error('it is not told what is too old')
        asked.push(isOutageTolerated)
        await Promise.resolve()
        whileAsked(line)
        await Promise.resolve()
        return state.confirmed === undefined ? granted(BELIEVED_UNTIL) : denied(state.confirmed)
      },
      check: () => (state.bound === undefined ? granted(undefined) : denied(state.bound)),
      findGone: () => undefined,
    },
    policy: () => policyFor(state.allowed),
  }
  const handshake: Handshake = {
    readCredential: async () => granted({ token: 'a token', role: 'node' }),
    connectGateway: async () => ({ socket }) as unknown as GatewayConnection,
    findObjection: () => state.told,
    release: () => {},
    refusalMessage: () => undefined,
  }
  const request: AdmitRequest = {
    worker: worker as unknown as Worker,
    handshake,
    stages,
    attempt: {},
    mayContinue: () => true,
    onProven: () => {},
    release: (admitted) => void released.push(admitted),
  }
  return { ...line, request }
}

const throwing = (error: unknown) => () => {
  throw error
}

/** What must keep a worker out while its pod is asked for once more, and with which code. */
const DISASTERS: Readonly<Record<string, readonly [(line: Line) => void, Code]>> = {
  'the API server knows no such pod': [
    ({ state }) => (state.confirmed = 'pod_not_found'),
    'pod_not_found',
  ],
  'the API server is away': [
    throwing(new Fault('pod_unconfirmed', 'no answer')),
    'pod_unconfirmed',
  ],
  'its pod is deleted': [
    ({ registry }) => registry.revokePod(CLAIMS.podUid, 'pod_deleted'),
    'pod_deleted',
  ],
  'a newer session displaces it': [
    ({ registry }) => registry.revokePod(CLAIMS.podUid, 'displaced'),
    'displaced',
  ],
  'the worker leaves': [({ worker }) => worker.onGone('worker_gone'), 'worker_gone'],
  'the gateway leaves': [({ socket }) => (socket.destroyed = true), 'gateway_gone'],
  'the policy drops it': [({ state }) => (state.allowed = 'another'), 'identity_not_allowed'],
  'its pod moves': [
    ({ state }) => (state.bound = 'source_address_mismatch'),
    'source_address_mismatch',
  ],
  'its token expires': [({ state }) => (state.judged = 'token_expired'), 'token_expired'],
  'its verdict no longer stands': [({ state }) => (state.isStanding = false), 'review_unavailable'],
  'what the gateway was told is no longer true': [
    ({ state }) => (state.told = 'policy_changed'),
    'policy_changed',
  ],
}

for (const [name, [disaster, code]] of Object.entries(DISASTERS)) {
  test(`asked about once more, a worker stays out when ${name}, and its gateway's socket closes`, async (t) => {
    const { request, released, socket, registry, asked } = createLine(disaster)
    t.strictSame(await admit(request), denied(code))
    t.strictSame([released.length, socket.destroyed, registry.size], [0, true, 0])
    t.equal(asked.length, 1)
  })
}

test("a bug in the last question is no refusal, and its gateway's socket closes all the same", async (t) => {
  const { request, socket, registry } = createLine(throwing(new TypeError('a bug')))
  await t.rejects(admit(request), { message: 'a bug' })
  t.strictSame([socket.destroyed, registry.size], [true, 0])
})

test('a worker is asked about once more at most, and not at all while the first word is believed', async (t) => {
  const late = createLine()
  t.equal((await admit(late.request)).ok, true)
  t.strictSame([late.asked.length, late.released.length, late.socket.destroyed], [1, 1, false])

  const quick = createLine()
  quick.state.isOutdated = false
  t.equal((await admit(quick.request)).ok, true)
  t.strictSame([quick.asked.length, quick.released.length, quick.socket.destroyed], [0, 1, false])
})

test('an outage is tolerated for whom it was before the gateway was dialed', async (t) => {
  for (const [source, isTolerated] of [
    ['cache', true],
    ['local', true],
    ['review', false],
  ] as const) {
    const { request, asked } = createLine(() => {}, source)
    await admit(request)
    t.strictSame(asked, [isTolerated], source)
  }
})
