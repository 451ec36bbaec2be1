/** The sidecar as the chart has it, on the real API server: its pod's files, its ServiceAccount, its workers' pods. */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { startGatewayStub } from '@openclaw-k8s/gateway-stub'
import { waitForProcess } from '../kit/wait.ts'
import { keepTrackOf } from '../kit/leftovers.ts'
import { closed, connectWorker } from '../kit/worker-client.ts'
import type { Running } from '../openclaw/processes.ts'
import { adoptPod, type PodProcesses } from './kubelet.ts'
import { CHART } from './render.ts'
import { freshName, openNamespace, startDeployRig, type DeployRig } from './deploy-rig.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

const PODS_WITHIN_MS = 30_000
const READY_WITHIN_MS = 20_000
/** The sidecar's promise is a second; the rest is what a busy machine may add. */
const ENDED_WITHIN_MS = 10_000
const AUDIT_MS_MAX = 10_000

describe('a worker of the chart', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const at = `--namespace=${namespace}`
  let gatewayPod: PodProcesses
  let workerPod: PodProcesses
  let sidecar: Running
  let ports: { readonly workers: string; readonly admin: string }
  let stub: Awaited<ReturnType<typeof startGatewayStub>>
  const ends: (() => Promise<unknown>)[] = []

  before(async () => {
    ends.push(await openNamespace(rig, namespace))
    stub = await startGatewayStub()
    ends.push(() => stub.close())
    const stream = '--set=sidecar.config.gateway.protocol=stream'
    // The chart allows its own workers for that protocol only where they can show a header.
    const header = '--set=workers.envFrom[0].configMapRef.name=header'
    await rig.helm('install', 'openclaw', CHART, at, stream, header)
    const podNamed = async (prefix: string): Promise<string> => {
      let name: string | undefined
      await waitForProcess(`the pod ${prefix}…`, PODS_WITHIN_MS, async () => {
        const names = (await rig.kubectl('get', 'pods', at, '-o=name')).split('\n')
        name = names.find((each) => each.startsWith(`pod/${prefix}`))?.slice('pod/'.length)
        return name !== undefined
      })
      return name ?? ''
    }
    gatewayPod = await adoptPod(rig, namespace, await podNamed('openclaw-gateway-0'), '127.2.0.1')
    workerPod = await adoptPod(rig, namespace, await podNamed('openclaw-worker-'), '127.2.0.2')
    sidecar = await gatewayPod.startSidecar([
      'listen.workers=127.0.0.1:0',
      'listen.admin=127.0.0.1:0',
      // The chart's own gateway has a port that may be taken here.
      `gateway.url=${stub.url}`,
    ])
    ends.push(keepTrackOf(() => sidecar.end('SIGTERM')))
    await waitForProcess('its ports', READY_WITHIN_MS, () => {
      assert.ok(!sidecar.hasExited(), sidecar.tell())
      const line = sidecar.errors.find((each) => each.includes('"listening"'))
      if (line !== undefined) ports = JSON.parse(line) as typeof ports
      return line !== undefined
    })
    await waitForProcess('readiness', READY_WITHIN_MS, async () => {
      assert.ok(!sidecar.hasExited(), sidecar.tell())
      return (await fetch(`http://${ports.admin}/readyz`)).ok
    })
  })
  after(async () => {
    for (const end of ends.toReversed()) await end()
  })

  const tokenOf = async (pod: PodProcesses, container: string, file: string) =>
    readFileSync(await pod.locate(container, file), 'utf8')
  const connect = async (token: string, localAddress: string) =>
    connectWorker({ url: `ws://${ports.workers}`, token, localAddress })

  test('is let in with the token its pod mounts, from its pod', async () => {
    const token = await tokenOf(workerPod, 'worker', '/var/run/secrets/openclaw/token')
    const outcome = await connect(token, workerPod.ip)
    assert.ok(outcome.ok, sidecar.tell())
    outcome.socket.terminate()
    const stolen = await connect(token, gatewayPod.ip)
    assert.equal(stolen.ok, false, 'and from nowhere else')
  })

  test("is not let in with the sidecar's own token: that is for the API server", async () => {
    const file = '/var/run/secrets/kubernetes.io/serviceaccount/token'
    const outcome = await connect(await tokenOf(gatewayPod, 'auth-sidecar', file), gatewayPod.ip)
    assert.equal(outcome.ok, false)
  })

  test('is out when its pod is deleted', async () => {
    const token = await tokenOf(workerPod, 'worker', '/var/run/secrets/openclaw/token')
    const outcome = await connect(token, workerPod.ip)
    assert.ok(outcome.ok)
    const end = closed(outcome.socket)
    await rig.kubectl('delete', 'pod', workerPod.name, at, '--force', '--grace-period=0')
    let code: number | undefined
    void end.then((close) => (code = close.code))
    await waitForProcess('the end of its stream', ENDED_WITHIN_MS, () => code !== undefined)
    assert.equal(code, 1008)
  })

  test('every decision is on the audit', async () => {
    const listEvents = () =>
      sidecar.lines
        .filter((line) => line.includes('"audit"'))
        .map((line) => (JSON.parse(line) as { event: string }).event)
    for (const event of ['k8s-auth-success', 'k8s-auth-failed', 'k8s-session-closed']) {
      // Refusals are gathered for a second.
      await waitForProcess(event, AUDIT_MS_MAX, () => listEvents().includes(event))
    }
  })
})
