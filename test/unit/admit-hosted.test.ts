/** No disaster at any wait of a hosted request's admission lets it through. */

import { test } from 'tap'
import type { Admission, LiveStream } from '@openclaw-k8s/auth-sidecar/admissions/admission.ts'
import { AdmissionRegistry } from '@openclaw-k8s/auth-sidecar/admissions/registry.ts'
import { createPolicy } from '@openclaw-k8s/auth-sidecar/authz/policy.ts'
import type { Caller } from '@openclaw-k8s/auth-sidecar/authz/pod-binding.ts'
import { denied, granted, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'
import {
  admitHosted,
  type AdmitHostedRequest,
  type HostedStages,
} from '@openclaw-k8s/auth-sidecar/edge/admit-hosted.ts'
import { Fault } from '@openclaw-k8s/auth-sidecar/fault.ts'
import { identityOf } from '@openclaw-k8s/auth-sidecar/identity.ts'
import type { WatchedPod } from '@openclaw-k8s/auth-sidecar/kube/pod.ts'
import { CLAIMS } from '../kit/claims.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const ADDRESS = '10.244.1.1'

const POD = { uid: CLAIMS.podUid } as WatchedPod
const STREAM: LiveStream = {
  counts: { bytesUp: 0, bytesDown: 0, messagesUp: 0, messagesDown: 0 },
  close: () => {},
  destroy: () => {},
  ping: () => {},
}

const policyWith = (allowSessionHosting: boolean) =>
  createPolicy([
    {
      namespace: 'openclaw',
      serviceAccount: 'worker',
      allowedRoles: ['node'],
      allowedCommands: ['*'],
      allowSessionHosting,
    },
  ])

const BELIEVED_UNTIL = { pod: 0, account: 0 }

/** The last one only where the gateway took its time behind a silent watch. */
const STEPS = ['verify', 'authenticate', 'bind', 'connect', 'confirm'] as const
type Step = (typeof STEPS)[number]

type Line = {
  readonly registry: AdmissionRegistry
  readonly own: Admission
  readonly state: {
    isAllowed: boolean
    provenPod: WatchedPod | undefined
    bound: Code | undefined
    judged: Code | undefined
    isStanding: boolean
    isOutdated: boolean
    isGatewayGone: boolean
  }
  readonly released: unknown[]
  readonly disconnected: unknown[]
}

/** A line whose pod has a live stream; `at` is called in the middle of each wait. */
const createLine = (token: string | undefined, at: (step: Step, line: Line) => void) => {
  const registry = new AdmissionRegistry({
    streamsMax: 10,
    streamsPerPodMax: 2,
    hostedPerPodMax: 2,
    clock: new FakeClock(),
  })
  const own = registry.begin(CLAIMS, ADDRESS)
  if (!own.ok) throw new Error('the own stream was refused')
  own.value.admit('node')
  own.value.attach(STREAM)
  const line: Line = {
    registry,
    own: own.value,
    state: {
      isAllowed: true,
      provenPod: POD,
      bound: undefined,
      judged: undefined,
      isStanding: true,
      isOutdated: true,
      isGatewayGone: false,
    },
    released: [],
    disconnected: [],
  }
  const { state, released, disconnected } = line
  let connected = 0
  const wait = async <T>(step: Step, value: T): Promise<T> => {
    await Promise.resolve()
    at(step, line)
    await Promise.resolve()
    return value
  }
  /** As the real binding does, which waives a termination and nothing else. */
  const verdictOf = <T>(code: Code | undefined, { mayFinish = false }: Caller, value: T) =>
    code === undefined || (code === 'pod_terminating' && mayFinish) ? granted(value) : denied(code)
  const stages: HostedStages = {
    precheck: {
      read: () => granted(CLAIMS),
      renewIssuer: async () => 'issuer_not_allowed',
      judge: () => (state.judged === undefined ? granted(CLAIMS) : denied(state.judged)),
      verify: () => wait('verify', granted('verified')),
    },
    registry,
    authenticator: {
      authenticate: () =>
        wait('authenticate', granted({ identity: identityOf(CLAIMS), source: 'review' })),
      isStanding: () => state.isStanding,
    },
    binding: {
      bind: (caller) => wait('bind', verdictOf(state.bound, caller, BELIEVED_UNTIL)),
      isOutdated: (_caller, believedUntil) => believedUntil === BELIEVED_UNTIL && state.isOutdated,
      confirm: (caller) => wait('confirm', verdictOf(state.bound, caller, BELIEVED_UNTIL)),
      check: (caller) => verdictOf(state.bound, caller, undefined),
      findGone: () => undefined,
    },
    policy: () => policyWith(state.isAllowed),
    proveAddress: () => state.provenPod,
    isLocalAddress: () => false,
  }
  const worker = { address: ADDRESS, token, abortCode: undefined, onGone: (_code: Code) => {} }
  const request: AdmitHostedRequest<string> = {
    worker,
    kind: 'hosted',
    stages,
    attempt: {},
    mayContinue: () => true,
    onProven: () => {},
    connect: () => {
      connected += 1
      return wait('connect', 'a connection')
    },
    isGone: () => state.isGatewayGone,
    disconnect: (gateway) => void disconnected.push(gateway),
    beforeRefusal: async () => {},
    release: (admitted) => void released.push(admitted),
  }
  return { ...line, worker, request, connects: () => connected }
}

type Disaster = (line: Line) => void

/** What must keep a request out, however late it happens; by how it proves its pod. */
const DISASTERS: Readonly<Record<string, readonly [Disaster, readonly string[]]>> = {
  'its own stream ends': [({ own }) => own.finish(), ['token', 'address']],
  'its own stream is revoked': [({ own }) => own.revoke('displaced'), ['token', 'address']],
  'its pod is deleted': [
    ({ registry }) => registry.revokePod(CLAIMS.podUid, 'pod_deleted'),
    ['token', 'address'],
  ],
  'the policy forbids hosting': [({ state }) => (state.isAllowed = false), ['token', 'address']],
  'its pod is no longer bound': [
    ({ state }) => (state.bound = 'source_address_mismatch'),
    ['token', 'address'],
  ],
  'its token expires': [({ state }) => (state.judged = 'token_expired'), ['token']],
  'its verdict no longer stands': [({ state }) => (state.isStanding = false), ['token']],
  'its address proves nothing': [({ state }) => (state.provenPod = undefined), ['address']],
  'its address proves another pod': [
    ({ state }) => (state.provenPod = { ...POD, uid: 'another' }),
    ['address'],
  ],
}

for (const [name, [disaster, proofs]] of Object.entries(DISASTERS)) {
  for (const proof of proofs) {
    test(`a request with the proof of its ${proof} stays out when ${name}`, async (t) => {
      const waits = proof === 'token' ? STEPS : (['bind', 'connect', 'confirm'] as const)
      for (const step of waits) {
        const { request, released, disconnected, registry, connects } = createLine(
          proof === 'token' ? 'a token' : undefined,
          (reached, line) => {
            if (reached === step) disaster(line)
          },
        )
        const verdict = await admitHosted(request)
        t.equal(verdict.ok, false, step)
        t.equal(released.length, 0, step)
        t.equal(disconnected.length, connects(), 'what was dialed is given up')
        t.ok([...registry.listCounts()].length <= 1, 'nothing of it is left')
      }
    })
  }
}

test('without a disaster a request is released once, by either proof', async (t) => {
  for (const token of ['a token', undefined]) {
    const { request, released, disconnected } = createLine(token, () => {})
    t.equal((await admitHosted(request)).ok, true)
    t.equal(released.length, 1)
    t.equal(disconnected.length, 0)
    t.match(request.attempt, { role: 'node', identity: { podUid: CLAIMS.podUid } })
  }
})

test('a request whose gateway was quick is not asked about once more, and one whose gateway has left is refused', async (t) => {
  for (const token of ['a token', undefined]) {
    const steps: Step[] = []
    const quick = createLine(token, (step) => void steps.push(step))
    quick.state.isOutdated = false
    t.equal((await admitHosted(quick.request)).ok, true)
    t.notOk(steps.includes('confirm'))

    const left = createLine(token, (step, { state }) => {
      if (step === 'confirm') state.isGatewayGone = true
    })
    t.strictSame(await admitHosted(left.request), denied('gateway_gone'))
    t.strictSame([left.released.length, left.disconnected.length], [0, 1])

    const unanswered = createLine(token, (step) => {
      if (step === 'confirm') throw new Fault('pod_unconfirmed', 'no answer')
    })
    t.strictSame(await admitHosted(unanswered.request), denied('pod_unconfirmed'))
    t.strictSame([unanswered.released.length, unanswered.disconnected.length], [0, 1])
  }
})

test('a terminating pod may still finish its turns, until its own stream is over', async (t) => {
  for (const token of ['a token', undefined]) {
    const finishing = createLine(token, (_step, { state }) => (state.bound = 'pod_terminating'))
    t.equal((await admitHosted(finishing.request)).ok, true)
    const over = createLine(token, (step, { state, own }) => {
      state.bound = 'pod_terminating'
      if (step === 'connect') own.finish()
    })
    t.strictSame(await admitHosted(over.request), denied('pod_terminating'))
    t.equal(over.released.length, 0)
  }
})

test('a worker that leaves is given up, a fault has its code, and a bug is neither', async (t) => {
  const line = createLine('a token', (step) => {
    if (step === 'bind') line.worker.onGone('worker_gone')
  })
  t.strictSame(await admitHosted(line.request), denied('worker_gone'))
  const unanswered = createLine('a token', (step) => {
    if (step === 'authenticate') throw new Fault('review_unavailable', 'no answer')
  })
  t.strictSame(await admitHosted(unanswered.request), denied('review_unavailable'))
  t.equal(unanswered.request.attempt.fault?.code, 'review_unavailable')
  const broken = createLine('a token', (step) => {
    if (step === 'bind') throw new TypeError('a bug')
  })
  await t.rejects(admitHosted(broken.request), { message: 'a bug' })
})
