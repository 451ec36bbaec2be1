/** In the openclaw dialect too: a pod deleted at any moment of its admission leaves no stream behind. */

import { setImmediate as turn } from 'node:timers/promises'
import tap, { test } from 'tap'
import { WebSocket, type RawData } from 'ws'
import { createDeviceKeys } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/device-key.ts'
import { Enrolment } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/enrolment.ts'
import { GatewayTraits } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/gateway-traits.ts'
import { createOpenClawDialect } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/openclaw.ts'
import { Sessions } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/sessions.ts'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import type { Pod } from '../kit/kube-store.ts'
import { Semaphore } from '@openclaw-k8s/auth-sidecar/lib/semaphore.ts'
import { KeyRing } from '../kit/kube-tokens.ts'
import {
  positionsOf,
  startAdmissionStepper,
  untilClosed,
  type DialectParts,
} from '../kit/admission-stepper.ts'
import type { Position, AdmissionStepper } from '../kit/admission-stepper.ts'
import { waitUntil } from '../kit/wait.ts'
import { connectFrame, createDevice } from '../kit/light-node.ts'

/** How the gateway comes to know a device; by approval it refuses it until then. */
type Way = 'known' | 'bootstrap' | 'approval'
let way: Way = 'known'
/** Devices whose pairing was approved, and of which nothing was removed since. */
const approved = new Set<string>()

const gateway = await startGatewayStub({
  mode: 'openclaw',
  pair: ({ role, device }) =>
    way === 'approval' && role === 'node' && !approved.has(device?.id ?? '')
      ? { code: 'PAIRING_REQUIRED', message: 'pairing required' }
      : undefined,
})
tap.teardown(() => gateway.close())
const keys = await KeyRing.create(['ES256'])

/** The dialect as it ships; each answer of the operator comes a microtask later and is a separate step. */
const inOpenClaw =
  (wayOfGateway: Way) =>
  ({ dial, clock, probe }: DialectParts) => {
    way = wayOfGateway
    const sessions = new Sessions()
    const devices = probe.watch('devices', {
      isEnrolled: async () => way === 'known',
      list: async () => [],
      markEnrolled: () => {},
      remove: async () => {},
      mintBootstrapToken: async () => (way === 'bootstrap' ? 'bootstrap' : undefined),
    })
    const traits = new GatewayTraits()
    if (way === 'approval') traits.learnBootstrap('unknown method')
    const requests = probe.watch('requests', {
      find: async ({ device }: { readonly device: { readonly id: string } }) => device.id,
      approve: async (id: string) => void approved.add(id),
      approveSurface: async () => true,
      confirm: async () => {},
    })
    const enrolment = new Enrolment({
      dial,
      handshakes: probe.watch('handshakes', new Semaphore(1)),
      devices,
      requests,
      ephemeral: probe.watch('ephemeral', {
        keep: async () => {},
        discard: (id: string) => void approved.delete(id),
      }),
      traits,
      firstSurfaces: { take: () => true, giveBack: () => {} },
      surfaces: { check: () => {} },
      readAuth: () => ({}),
      handshakeTimeoutMs: 5000,
      messageBytesMax: 1_000_000,
      clock,
      onEnrolled: () => {},
    })
    return createOpenClawDialect({
      inBandCredentials: true,
      isLocalAddress: () => false,
      deviceKeys: createDeviceKeys('a-seed-of-more-than-sixteen-bytes'),
      sessions,
      enrolment: probe.watch('enrolment', enrolment),
      traits,
      clock,
      randomId: () => crypto.randomUUID(),
    })
  }

/** One admission from the first byte on; `closed` resolves when the worker's socket is gone. */
const admit = (stepper: AdmissionStepper) => {
  approved.clear()
  const { pod, token } = stepper.createPod()
  const worker = new WebSocket(stepper.url, {
    perMessageDeflate: false,
    localAddress: '127.0.0.11',
  })
  const device = createDevice()
  worker.on('message', (data: RawData) => {
    const { event, payload } = JSON.parse((data as Buffer).toString()) as {
      event?: string
      payload?: { nonce: string; ts: number }
    }
    if (event !== 'connect.challenge' || payload === undefined) return
    const params = { device, auth: { token } }
    worker.send(JSON.stringify(connectFrame(payload.nonce, payload.ts, params)))
  })
  const closed = new Promise<void>((resolve) => {
    worker.on('close', () => resolve())
    worker.on('error', () => {})
  })
  return { pod, worker, closed }
}

type Strike = {
  readonly strike: (stepper: AdmissionStepper, pod: Pod) => void
  readonly codes: RegExp
  /** It takes effect at the moment it strikes, and must be undone before the next one. */
  readonly restore?: (stepper: AdmissionStepper) => void
}

const ACCOUNT = 'openclaw-worker'
const restore = (stepper: AdmissionStepper) => stepper.allow(ACCOUNT)
const DELETED = /^(pod_terminating|pod_deleted|review_rejected)$/

const STRIKES: Readonly<Record<string, Strike>> = {
  'its pod is deleted': {
    strike: (stepper, pod) => stepper.workloads.deletePod('openclaw', pod.metadata.name),
    codes: DELETED,
  },
  'its pod is deleted by force': {
    strike: (stepper, pod) => stepper.removePod(pod),
    codes: DELETED,
  },
  'a reload takes it off the list': {
    strike: (stepper) => stepper.allow('another'),
    codes: /^(identity_not_allowed|pod_unconfirmed)$/,
    restore,
  },
  'a reload takes its role away': {
    strike: (stepper) => stepper.allow(`${ACCOUNT}, allowedRoles: [observer]`),
    codes: /^role_not_allowed$/,
    restore,
  },
}

const strikeAt = async (stepper: AdmissionStepper, { strike }: Strike, at: Position) => {
  stepper.outcomes.length = 0
  const { pod, closed } = admit(stepper)
  let isInTime = false
  stepper.probe.arm(at, () => {
    isInTime = !stepper.probe.steps.includes('binding.check')
    strike(stepper, pod)
  })
  await untilClosed(stepper, closed)
  const { outcomes, registry } = stepper
  await waitUntil(
    () => registry.size === 0 && gateway.connections.size === 0 && outcomes.length > 0,
  )
  await turn()
  return { outcomes: [...outcomes], isInTime }
}

/** The steps of a whole admission and the moments between them. */
const calibrate = async (stepper: AdmissionStepper) => {
  stepper.probe.arm()
  const { worker, closed } = admit(stepper)
  await waitUntil(() => stepper.outcomes.includes('admitted'))
  await turn()
  const steps = [...stepper.probe.steps]
  const positions = positionsOf(stepper.probe)
  worker.terminate()
  await closed
  await waitUntil(() => stepper.registry.size === 0 && gateway.connections.size === 0)
  return { steps, positions }
}

const WAYS: Readonly<Record<Way, string>> = {
  known: 'a known device',
  bootstrap: 'a device to be enrolled',
  approval: 'a device to be approved',
}

for (const [each, who] of Object.entries(WAYS) as [Way, string][]) {
  const isEnrolled = each === 'known'
  for (const [name, strike] of Object.entries(STRIKES)) {
    // A reload strikes them alike; the waits of an enrolment are the gateway's and the pod's.
    if (strike.restore !== undefined && !isEnrolled) continue
    test(`${who}: when ${name} at any moment, nothing is left`, async (t) => {
      const stepper = await startAdmissionStepper(keys, gateway.url, inOpenClaw(each))
      t.teardown(() => stepper.stop())
      const { steps, positions } = await calibrate(stepper)
      t.ok(steps.includes('enrolment.enter'), 'its own waits are steps too')

      let refused = 0
      for (const at of positions) {
        const place = `${at.offset} microtasks after ${at.step}, ${steps[at.step]}`
        const { outcomes, isInTime } = await strikeAt(stepper, strike, at).catch(
          (error: unknown) => {
            throw new Error(`something was left: ${place}`, { cause: error })
          },
        )
        const last = outcomes.at(-1)?.split(' ')[1] ?? ''
        if (!strike.codes.test(last)) t.fail(`${place}: ${outcomes.join(', ')}`)
        if (!stepper.probe.hasFired) t.fail(`${place}: never came`)
        // From then on the record goes with the pod, as that of a worker that was let in.
        const isConfirmed = stepper.probe.steps.includes('requests.confirm settled')
        const isLeft = outcomes[0] !== 'admitted' && approved.size > 0
        if (isLeft && !isConfirmed) t.fail(`${place}: its record is left`)
        if (outcomes[0] !== 'admitted') refused += 1
        else if (isInTime && strike.restore !== undefined) t.fail(`${place}: let in all the same`)
        strike.restore?.(stepper)
      }
      t.ok(
        refused > 0 && refused < positions.length,
        `${positions.length} moments, ${refused} refused`,
      )
    })
  }

  test(`${who}: when a reload takes a command away at any moment, no session has it`, async (t) => {
    const stepper = await startAdmissionStepper(keys, gateway.url, inOpenClaw(each))
    t.teardown(() => stepper.stop())
    const { steps, positions } = await calibrate(stepper)
    const ends = { filtered: 0, refused: 0, closed: 0 }
    for (const at of positions) {
      const place = `${at.offset} microtasks after ${at.step}, ${steps[at.step]}`
      stepper.outcomes.length = 0
      const told = gateway.received.length
      const { worker, closed } = admit(stepper)
      stepper.probe.arm(at, () => stepper.allow(`${ACCOUNT}, allowedCommands: [system.which]`))
      await waitUntil(() => stepper.probe.hasFired && stepper.outcomes.length > 0)
      // A session revoked at the moment of its release is closed a moment later.
      await waitUntil(() => stepper.registry.size === 0 || isSettled(stepper, told))
      if (stepper.registry.size === 0) {
        const [first = '', last = ''] = stepper.outcomes
        const isClosed = first === 'admitted' && last === 'closed policy_changed'
        if (isClosed) ends.closed += 1
        else if (first === 'refused policy_changed') ends.refused += 1
        else t.fail(`${place}: ${stepper.outcomes.join(', ')}`)
      } else {
        ends.filtered += 1
        t.strictSame(commandsTold(told), ['system.which'], place)
      }
      worker.terminate()
      await closed
      await waitUntil(() => stepper.registry.size === 0 && gateway.connections.size === 0)
      stepper.allow(ACCOUNT)
    }
    t.ok(ends.filtered > 0 && ends.refused > 0 && ends.closed > 0, JSON.stringify(ends))
  })
}

test('when a reload allows more at any moment, nobody is let in with the commands the gateway knew before', async (t) => {
  const stepper = await startAdmissionStepper(keys, gateway.url, inOpenClaw('known'))
  t.teardown(() => stepper.stop())
  const { steps, positions } = await calibrate(stepper)
  let refused = 0
  for (const at of positions) {
    const place = `${at.offset} microtasks after ${at.step}, ${steps[at.step]}`
    stepper.outcomes.length = 0
    const told = gateway.received.length
    stepper.allow(`${ACCOUNT}, allowedCommands: [system.which]`)
    const { worker, closed } = admit(stepper)
    let isInTime = false
    stepper.probe.arm(at, () => {
      isInTime = !stepper.probe.steps.includes('binding.check')
      stepper.allow(ACCOUNT)
    })
    await waitUntil(() => stepper.probe.hasFired && stepper.outcomes.length > 0)
    const [outcome] = stepper.outcomes
    const isWide = (commandsTold(told)?.length ?? 0) > 1
    if (outcome === 'refused policy_changed') refused += 1
    else if (outcome !== 'admitted') t.fail(`${place}: ${outcome}`)
    else if (isInTime && !isWide) t.fail(`${place}: let in with less`)
    worker.terminate()
    await closed
    await waitUntil(() => stepper.registry.size === 0 && gateway.connections.size === 0)
    t.strictSame(
      stepper.outcomes.slice(1).filter((each) => each.includes('policy_changed')),
      [],
    )
  }
  t.ok(refused > 0 && refused < positions.length, `${refused} of ${positions.length} refused`)
})

/** The commands in the last `connect` that the gateway has received since. */
const commandsTold = (since: number): readonly string[] | undefined =>
  gateway.received
    .slice(since)
    .map(({ data }) => JSON.parse(data.toString()) as { params?: { commands?: string[] } })
    .findLast(({ params }) => params?.commands !== undefined)?.params?.commands

const isSettled = (stepper: AdmissionStepper, since: number): boolean =>
  stepper.outcomes.length === 1 && commandsTold(since)?.length === 1
