/** In the openclaw dialect too: a pod deleted at any moment of its admission leaves no stream behind. */

import { setImmediate as turn } from 'node:timers/promises'
import tap, { test } from 'tap'
import { WebSocket, type RawData } from 'ws'
import { createDeviceKeys } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/device-key.ts'
import { Enrolment } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/enrolment.ts'
import { createOpenClawDialect } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/openclaw.ts'
import { Sessions } from '@openclaw-k8s/auth-sidecar/dialect/openclaw/sessions.ts'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import type { Pod } from '../kit/kube-store.ts'
import { Places } from '@openclaw-k8s/auth-sidecar/places.ts'
import { KeyRing } from '../kit/kube-tokens.ts'
import {
  positionsOf,
  startSteppedLine,
  untilClosed,
  type DialectParts,
} from '../kit/stepped-line.ts'
import type { Position, SteppedLine } from '../kit/stepped-line.ts'
import { until } from '../kit/until.ts'
import { connectFrame, createDevice } from '../openclaw/light-node.ts'

const gateway = await startGatewayStub({ mode: 'openclaw' })
tap.teardown(() => gateway.close())
const keys = await KeyRing.create(['ES256'])

/** The dialect as it ships; the operator's answers come a microtask later, each a step of its own. */
const inOpenClaw =
  (isEnrolled: boolean) =>
  ({ dial, clock, probe }: DialectParts) => {
    const devices = probe.watch('devices', {
      isEnrolled: async () => isEnrolled,
      list: async () => [],
      note: () => {},
      remove: async () => {},
      mintBootstrapToken: async () => 'bootstrap',
    })
    const enrolment = new Enrolment({
      dial,
      places: probe.watch('places', new Places(1)),
      devices,
      ephemeral: probe.watch('ephemeral', { keep: async () => {} }),
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
      sessions: new Sessions(),
      enrolment: probe.watch('enrolment', enrolment),
      clock,
      randomId: () => crypto.randomUUID(),
    })
  }

/** One admission from the first byte on; `closed` resolves when the worker's socket is gone. */
const admit = (line: SteppedLine) => {
  const { pod, token } = line.createPod()
  const worker = new WebSocket(line.url, { perMessageDeflate: false, localAddress: '127.0.0.11' })
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

const strikes: Readonly<Record<string, (line: SteppedLine, pod: Pod) => void>> = {
  deleted: (line, pod) => line.workloads.deletePod('openclaw', pod.metadata.name),
  'deleted by force': (line, pod) => line.removePod(pod),
}
const CODES = /^(pod_terminating|pod_deleted|review_rejected)$/

const strikeAt = async (line: SteppedLine, strike: (pod: Pod) => void, at: Position) => {
  line.outcomes.length = 0
  const { pod, closed } = admit(line)
  line.probe.arm(at, () => strike(pod))
  await untilClosed(line, closed)
  const { outcomes, streams } = line
  await until(() => streams.size === 0 && gateway.connections.size === 0 && outcomes.length > 0)
  await turn()
  return [...outcomes]
}

for (const isEnrolled of [true, false]) {
  for (const [name, strike] of Object.entries(strikes)) {
    const who = isEnrolled ? 'a known device' : 'a device to be enrolled'
    test(`${who}: when its pod is ${name} at any moment, nothing is left`, async (t) => {
      const line = await startSteppedLine(keys, gateway.url, inOpenClaw(isEnrolled))
      t.teardown(() => line.stop())
      line.probe.arm()
      const whole = admit(line)
      await until(() => line.outcomes.includes('admitted'))
      await turn()
      const steps = [...line.probe.steps]
      const positions = positionsOf(line.probe)
      whole.worker.terminate()
      await whole.closed
      await until(() => line.streams.size === 0 && gateway.connections.size === 0)
      t.ok(steps.includes('enrolment.enter'), 'its own waits are steps too')

      let refused = 0
      for (const at of positions) {
        const place = `${at.offset} microtasks after ${at.step}, ${steps[at.step]}`
        const outcomes = await strikeAt(line, (pod) => strike(line, pod), at).catch(
          (error: unknown) => {
            throw new Error(`something was left: ${place}`, { cause: error })
          },
        )
        const last = outcomes.at(-1)?.split(' ')[1] ?? ''
        if (!CODES.test(last)) t.fail(`${place}: ${outcomes.join(', ')}`)
        if (!line.probe.hasFired) t.fail(`${place}: never came`)
        if (outcomes[0] !== 'admitted') refused += 1
      }
      t.ok(
        refused > 0 && refused < positions.length,
        `${positions.length} moments, ${refused} refused`,
      )
    })
  }
}
