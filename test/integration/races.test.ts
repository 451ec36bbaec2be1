/** Whatever happens at any moment of an admission, no stream outlives its right to be there. */

import { setImmediate as turn } from 'node:timers/promises'
import tap, { test } from 'tap'
import { WebSocket } from 'ws'
import type { Claims } from '@openclaw-k8s/auth-sidecar/identity.ts'
import { AdmissionRegistry } from '@openclaw-k8s/auth-sidecar/admissions/registry.ts'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { FakeClock } from '../kit/fake-clock.ts'
import type { Pod } from '../kit/kube-store.ts'
import { KeyRing } from '../kit/kube-tokens.ts'
import { createStreamDialect } from '@openclaw-k8s/auth-sidecar/dialect/stream.ts'
import { Semaphore } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'
import { positionsOf, startAdmissionStepper, untilClosed } from '../kit/admission-stepper.ts'
import type { Position, AdmissionStepper, DialectParts } from '../kit/admission-stepper.ts'
import { waitUntil } from '../kit/wait.ts'

type Carrier = 'header' | 'in-band'
/** How a worker comes, and what it comes to. */
type Way = { readonly carrier: Carrier; readonly isSlow: boolean }
type Victim = { readonly stepper: AdmissionStepper; readonly pod: Pod; readonly worker: WebSocket }
type Disaster = {
  readonly strike: (victim: Victim) => void
  readonly codes: readonly string[]
  /** It takes effect at the moment it strikes; no watch has to report it. */
  readonly isImmediate?: true
  /** Set if one way in is enough for both. */
  readonly only?: Carrier
  /** Undoes what would block the next strike; without it there is no next one. */
  readonly restore?: (stepper: AdmissionStepper) => void
}

const NS = 'openclaw'
const ACCOUNT = 'openclaw-worker'
const nothing = () => {}

const DISASTERS: Readonly<Record<string, Disaster>> = {
  'its pod is deleted': {
    strike: ({ stepper, pod }) => stepper.workloads.deletePod(NS, pod.metadata.name),
    codes: ['pod_terminating', 'pod_deleted', 'review_rejected'],
    restore: nothing,
  },
  'its pod is deleted by force': {
    strike: ({ stepper, pod }) => stepper.removePod(pod),
    codes: ['pod_deleted', 'pod_not_found', 'review_rejected'],
    restore: nothing,
  },
  'its ServiceAccount is deleted': {
    strike: ({ stepper }) => stepper.workloads.deleteServiceAccount(NS, ACCOUNT),
    codes: ['service_account_deleted', 'review_rejected'],
    restore: nothing,
  },
  'it is taken off the list': {
    strike: ({ stepper }) => stepper.allow('another'),
    codes: ['identity_not_allowed', 'pod_unconfirmed'],
    isImmediate: true,
    restore: (stepper) => stepper.allow(ACCOUNT),
  },
  'its role is taken off its entry': {
    strike: ({ stepper }) => stepper.allow(`${ACCOUNT}, allowedRoles: [observer]`),
    codes: ['role_not_allowed'],
    isImmediate: true,
    only: 'in-band',
    restore: (stepper) => stepper.allow(ACCOUNT),
  },
  'trust is switched off': {
    strike: ({ stepper }) => stepper.allow(ACCOUNT, ['k8sTrust.enabled=false']),
    codes: ['trust_disabled', 'pod_unconfirmed'],
    isImmediate: true,
    only: 'header',
    restore: (stepper) => stepper.allow(ACCOUNT),
  },
  'the worker hangs up': {
    strike: ({ worker }) => worker.terminate(),
    codes: ['worker_gone'],
    restore: nothing,
  },
  'the sidecar drains': {
    strike: ({ stepper }) => stepper.drain(),
    codes: ['draining'],
    isImmediate: true,
  },
}

const gateway = await startGatewayStub()
tap.teardown(() => gateway.close())
const keys = await KeyRing.create(['ES256'])

/** By the time the gateway has answered, no watch has said anything for more than two seconds. */
const inSlowStream = ({ dial, clock, probe }: DialectParts) =>
  createStreamDialect({
    inBandCredentials: true,
    async dial(...asked) {
      const dialed = await dial(...asked)
      clock.advance(2001)
      return dialed
    },
    handshakes: probe.watch('handshakes', new Semaphore(1)),
  })

const startStepper = ({ isSlow }: Way) =>
  startAdmissionStepper(keys, gateway.url, ...(isSlow ? [inSlowStream] : []))

/** One admission from the first byte on; `closed` resolves when the worker's socket is gone. */
const admit = (stepper: AdmissionStepper, carrier: Carrier) => {
  const { pod, token } = stepper.createPod()
  const worker = new WebSocket(stepper.url, {
    perMessageDeflate: false,
    localAddress: '127.0.0.11',
    headers:
      carrier === 'header' ? { authorization: `Bearer ${token}`, 'x-openclaw-role': 'node' } : {},
  })
  const closed = new Promise<void>((resolve) => {
    worker.on('close', () => resolve())
    worker.on('error', nothing)
    worker.on('unexpected-response', (request) => {
      request.destroy()
      resolve()
    })
  })
  worker.on('open', () => {
    const frame = { type: 'connect.request', authMode: 'k8s-sa', saToken: token, role: 'node' }
    if (carrier === 'in-band') worker.send(JSON.stringify(frame))
  })
  return { pod, worker, closed }
}

/** The steps of a whole admission and the moments between them. */
const calibrate = async (way: Way) => {
  const { carrier, isSlow } = way
  const stepper = await startStepper(way)
  stepper.probe.arm()
  const { worker, closed } = admit(stepper, carrier)
  await waitUntil(() => stepper.outcomes.includes('admitted'))
  await turn()
  const steps = [...stepper.probe.steps]
  const positions = positionsOf(stepper.probe)
  worker.terminate()
  await closed
  await waitUntil(() => stepper.registry.size === 0)
  await stepper.stop()
  if (steps.includes('binding.confirm') !== isSlow) throw new Error(steps.join(', '))
  const name = isSlow ? `${carrier} at a slow gateway` : carrier
  return { ...way, name, steps, positions }
}

/** Rules that end no stream, but must hold for every admission still under way. */
const RULES: Readonly<Record<string, { readonly set: string; readonly code: string }>> = {
  'its token lives too long': {
    set: 'k8sTrust.maxTokenLifetime=1s',
    code: 'token_lifetime_exceeded',
  },
}

/** The outcome of an admission, as recorded, once all its sockets are gone. */
const strikeAt = async (
  stepper: AdmissionStepper,
  carrier: Carrier,
  how: Disaster,
  at: Position,
) => {
  stepper.outcomes.length = 0
  const { pod, worker, closed } = admit(stepper, carrier)
  let isInTime = false
  stepper.probe.arm(at, () => {
    // The last question of the line.
    isInTime = how.isImmediate === true && !stepper.probe.steps.includes('binding.check')
    how.strike({ stepper, pod, worker })
  })
  await untilClosed(stepper, closed)
  const { outcomes, registry } = stepper
  await waitUntil(
    () => registry.size === 0 && gateway.connections.size === 0 && outcomes.length > 0,
  )
  await turn()
  return { outcomes: [...outcomes], isInTime }
}

const isRight = ([first = '', last = '', ...more]: readonly string[], codes: readonly string[]) => {
  const isOne = more.length === 0 && (first === 'admitted' ? last !== '' : last === '')
  const code = (first === 'admitted' ? last : first).split(' ')[1] ?? ''
  return isOne && codes.includes(code)
}

// All before any test begins: all tests look at the one gateway.
const calibrated = [
  await calibrate({ carrier: 'header', isSlow: false }),
  await calibrate({ carrier: 'in-band', isSlow: false }),
  await calibrate({ carrier: 'header', isSlow: true }),
]

for (const { name: wayIn, steps, positions, ...way } of calibrated) {
  const { carrier } = way
  for (const [name, disaster] of Object.entries(DISASTERS)) {
    if ((disaster.only ?? carrier) !== carrier) continue
    test(`${wayIn}: when ${name} at any of ${positions.length} moments, nothing is left`, async (t) => {
      const { codes, restore } = disaster
      let stepper = await startStepper(way)
      let admitted = 0
      for (const at of positions) {
        const place = `${at.offset} microtasks after ${at.step}, ${steps[at.step]}`
        const { outcomes, isInTime } = await strikeAt(stepper, carrier, disaster, at).catch(
          (error: unknown) => {
            throw new Error(`something was left: ${place}`, { cause: error })
          },
        )
        if (!isRight(outcomes, codes)) t.fail(`${place}: ${outcomes.join(', ')}`)
        if (!stepper.probe.hasFired) t.fail(`${place}: never came`)
        if (outcomes[0] === 'admitted') admitted += 1
        if (outcomes[0] === 'admitted' && isInTime) t.fail(`${place}: let in all the same`)
        restore?.(stepper)
        if (restore !== undefined) continue
        await stepper.stop()
        stepper = await startStepper(way)
      }
      await stepper.stop()
      t.ok(admitted > 0, 'some were let in and then closed')
      // A socket that nobody reads does not say that its peer left.
      if (name !== 'the worker hangs up') t.ok(admitted < positions.length, 'and some were refused')
    })
  }
}

for (const [name, { set, code }] of Object.entries(RULES)) {
  for (const { carrier, positions, steps } of calibrated.slice(0, 1)) {
    test(`${carrier}: when by a new rule ${name} at any moment, only a stream goes on`, async (t) => {
      const stepper = await startAdmissionStepper(keys, gateway.url)
      t.teardown(() => stepper.stop())
      let refused = 0
      for (const at of positions) {
        const place = `${at.offset} microtasks after ${at.step}, ${steps[at.step]}`
        stepper.outcomes.length = 0
        const { worker, closed } = admit(stepper, carrier)
        let isInTime = false
        stepper.probe.arm(at, () => {
          isInTime = !stepper.probe.steps.includes('binding.check')
          stepper.allow(ACCOUNT, [set])
        })
        await waitUntil(() => stepper.outcomes.length > 0 && stepper.probe.hasFired)
        const [outcome = ''] = stepper.outcomes
        if (outcome !== 'admitted') refused += 1
        if (outcome !== 'admitted' && outcome !== `refused ${code}`) t.fail(`${place}: ${outcome}`)
        if (outcome === 'admitted' && isInTime) t.fail(`${place}: let in all the same`)
        worker.terminate()
        await closed
        await waitUntil(() => stepper.registry.size === 0 && gateway.connections.size === 0)
        stepper.allow(ACCOUNT)
      }
      t.ok(refused > 0 && refused < positions.length, `${refused} of ${positions.length} refused`)
    })
  }
}

test('a revocation that finds no stream yet closes it as soon as there is one', async (t) => {
  const registry = new AdmissionRegistry({
    streamsMax: 1,
    streamsPerPodMax: 1,
    clock: new FakeClock(),
  })
  const begun = registry.begin({ podUid: 'u' } as Claims, '127.0.0.11')
  if (!begun.ok) throw new Error(begun.code)
  const entry = begun.value
  const closes: string[] = []
  t.equal(entry.admit('node'), true)
  entry.revoke('draining')
  entry.attach({
    counts: {
      bytesUp: 0,
      bytesDown: 0,
      messagesUp: 0,
      messagesDown: 0,
    },
    close: (code) => void closes.push(code),
    ping: nothing,
    destroy: nothing,
  })
  t.same(closes, ['draining'])
})
