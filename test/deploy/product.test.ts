/** The chart's pods as processes: the real gateway takes its configuration, workers come in, `helm test` is right. */

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { waitForProcess } from '../kit/wait.ts'
import { podAddress } from '../kit/namespace.ts'
import { connectOperator, type Operator } from '../openclaw/operator.ts'
import { PINNED } from '../openclaw/product.ts'
import { runProcess, type Running } from '../openclaw/processes.ts'
import { isMatch } from './label-selector.ts'
import { adoptPod, type Image, type PodProcesses } from './kubelet.ts'
import type { Labels } from './objects.ts'
import { CHART } from './render.ts'
import { startDeployRig, type DeployRig } from './deploy-rig.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

const PODS_WITHIN_MS = 30_000
const GATEWAY_WITHIN_MS = 90_000
const WORKER_WITHIN_MS = 120_000
const GATEWAY_URL = 'ws://127.0.0.1:18789'

/** The image of OpenClaw, as far as it counts here. */
const OPENCLAW: Image = {
  words: { node: process.execPath, '/app/openclaw.mjs': PINNED.entry },
  entrypoint: [],
}

type Service = {
  readonly spec: {
    readonly selector: Labels
    readonly ports: readonly { readonly port: number; readonly targetPort: number }[]
  }
}

describe("the chart's pods", { skip }, () => {
  const rig = found as DeployRig
  const namespace = process.env['OPENCLAW_SUITE_NAMESPACE'] ?? ''
  const at = `--namespace=${namespace}`
  const running: Running[] = []
  let addresses = 0

  /** A pod that is not adopted yet: an earlier one of that name can still exist. */
  const podNamed = (prefix: string): Promise<string> =>
    waitForProcess(`the pod ${prefix}…`, PODS_WITHIN_MS, async () => {
      const pending = '--field-selector=status.phase=Pending'
      const names = (await rig.kubectl('get', 'pods', at, pending, '-o=name')).split('\n')
      return names.find((each) => each.startsWith(`pod/${prefix}`))?.slice('pod/'.length)
    })
  const adopt = async (prefix: string): Promise<PodProcesses> => {
    addresses += 1
    return adoptPod(rig, namespace, await podNamed(prefix), podAddress(addresses))
  }

  /**
   * What the cluster's name service and kube-proxy do: leads a caller of the Service to the pod it
   * selects. Here that is the caller's own address, so that it is also the source.
   */
  const throughService = async (caller: PodProcesses, gateway: PodProcesses) => {
    const name = 'openclaw-gateway'
    const { spec } = JSON.parse(await rig.kubectl('get', 'service', name, at, '-o=json')) as Service
    const [port] = spec.ports
    assert.ok(isMatch({ matchLabels: spec.selector }, gateway.pod.metadata.labels ?? {}))
    assert.ok(port)
    return (text: string): string => {
      if (text === name) return caller.ip
      if (text === String(port.port)) return String(port.targetPort)
      return text.replace(`//${name}:${port.port}`, `//${caller.ip}:${port.targetPort}`)
    }
  }

  /** The gateway's pod, whole; resolves once both its containers are ready. */
  const startGatewayPod = async () => {
    const pod = await adopt('openclaw-gateway-0')
    const sidecar = await pod.startSidecar()
    running.push(sidecar)
    const gateway = await pod.start('gateway', OPENCLAW)
    running.push(gateway)
    const { readinessProbe } = pod.find('gateway')
    const { command } = (readinessProbe as { exec: { command: readonly string[] } }).exec
    await waitForProcess('the gateway is ready', GATEWAY_WITHIN_MS, async () => {
      assert.ok(!gateway.hasExited(), gateway.tell())
      const [, ...args] = command
      await runProcess({ name: 'probe', command: process.execPath, args }, 10_000)
      return true
    })
    await waitForProcess('the sidecar is ready', GATEWAY_WITHIN_MS, async () => {
      assert.ok(!sidecar.hasExited(), sidecar.tell())
      const answer = await fetch('http://127.0.0.1:9464/readyz?verbose')
      if (!answer.ok) throw new Error(await answer.text())
      return true
    })
    return {
      pod,
      gateway,
      sidecar,
      end: async () => {
        await gateway.end('SIGKILL')
        await sidecar.end('SIGTERM')
        await rig.kubectl('delete', 'pod', pod.name, at, '--force', '--grace-period=0')
      },
    }
  }

  /** `helm test`, with its pod run as a kubelet would. */
  const helmTest = async (gateway: PodProcesses) => {
    const outcome = rig.tryHelm('test', 'openclaw', at, '--timeout=2m')
    const pod = await adopt('openclaw-handshake')
    const handshake = await pod.start('handshake', OPENCLAW, await throughService(pod, gateway))
    const exit = await handshake.closed
    await pod.finish(exit)
    return { ...(await outcome), said: handshake.tell() }
  }

  let gateway: Awaited<ReturnType<typeof startGatewayPod>>
  let operator: Operator

  before(async () => {
    await rig.helm('install', 'openclaw', CHART, at)
  })
  after(async () => {
    await operator?.close()
    for (const each of running.toReversed()) if (!each.hasExited()) await each.end('SIGKILL')
  })

  test('the gateway takes its configuration as rendered, and its own probe finds it ready', async () => {
    gateway = await startGatewayPod()
    const bound = gateway.gateway.tell()
    assert.doesNotMatch(bound, /invalid config|unrecognized|doctor --fix/i)
    const token = await rig.kubectl(
      'get',
      'secret/openclaw-gateway-token',
      at,
      '-o=jsonpath={.data.token}',
    )
    operator = await connectOperator(GATEWAY_URL, {
      token: Buffer.from(token, 'base64').toString(),
    })
    assert.deepEqual(await operator.nodes(), [])
  })

  test('helm test: a handshake through the Service goes through, and a forged token does not', async () => {
    const { code, stderr, said } = await helmTest(gateway.pod)
    assert.equal(code, 0, `${stderr}\n${said}\n${gateway.sidecar.tell()}`)
    assert.match(said, /own token.*: admitted/)
    assert.match(said, /forged token: (?!admitted)/)
  })

  test('a worker of the Deployment comes in by itself, and is listed under the name of its pod', async () => {
    const pod = await adopt('openclaw-worker-')
    for (const { name } of pod.pod.spec.initContainers ?? []) {
      const init = await pod.start(name, OPENCLAW)
      assert.equal((await init.closed).code, 0, init.tell())
    }
    const worker = await pod.start('worker', OPENCLAW, await throughService(pod, gateway.pod))
    running.push(worker)
    await waitForProcess(`${pod.name} is connected`, WORKER_WITHIN_MS, async () => {
      assert.ok(!worker.hasExited(), `${worker.tell()}\n${gateway.sidecar.tell()}`)
      const nodes = await operator.nodes()
      return nodes.some(({ displayName, connected }) => displayName === pod.name && connected)
    })
    await rig.kubectl('delete', 'pod', pod.name, at, '--force', '--grace-period=0')
    await waitForProcess('its device is forgotten', WORKER_WITHIN_MS, async () => {
      const devices = await operator.devices()
      return devices.every(({ displayName }) => displayName !== pod.name)
    })
    await worker.end('SIGKILL')
  })

  test('helm test tells when the sidecar lets nobody in', async () => {
    await rig.helm('upgrade', 'openclaw', CHART, at, '--set=sidecar.config.k8sTrust.enabled=false')
    await operator.close()
    await gateway.end()
    gateway = await startGatewayPod()
    const { code, said } = await helmTest(gateway.pod)
    assert.notEqual(code, 0)
    assert.match(said, /own token/)
    assert.doesNotMatch(said, /admitted/)
  })

  test('the same with a gateway in trusted-proxy mode', async () => {
    const values = `--values=${join(CHART, 'ci/trusted-proxy-values.yaml')}`
    await rig.helm('upgrade', 'openclaw', CHART, at, '--reset-values', values)
    await gateway.end()
    gateway = await startGatewayPod()
    const { code, stderr, said } = await helmTest(gateway.pod)
    assert.equal(code, 0, `${stderr}\n${said}\n${gateway.sidecar.tell()}`)
  })
})
