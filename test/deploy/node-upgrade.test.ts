/** From the chart and the image of 0.1.0 to these and back, on a node, with a worker that is connected whenever it can be. */

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { parseMetrics } from '../kit/parse-metrics.ts'
import { waitForProcess } from '../kit/wait.ts'
import { freshName, openNamespace, type DeployRig } from './deploy-rig.ts'
import { extractFirstChart, FIRST_COMMIT, whyNoFirstChart } from './first-chart.ts'
import { QUICK, startNodeRig } from './node-rig.ts'
import { CHART } from './render.ts'

const WORKER_WITHIN_MS = 150_000
/** A kubelet writes a changed ConfigMap into a pod in its next round: one a minute. */
const RELOADED_WITHIN_MS = 150_000
const GATEWAY = 'openclaw-gateway-0'
const found = await startNodeRig(`localhost/openclaw-auth-sidecar:${FIRST_COMMIT}`)
const skip = 'why' in found ? found.why : (whyNoFirstChart() ?? false)

describe('an upgrade on a node', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const at = `--namespace=${namespace}`
  const local = `--values=${join(CHART, 'values-local.yaml')}`
  let close: () => Promise<void>

  before(async () => {
    close = await openNamespace(rig, namespace)
    const { chart } = extractFirstChart(rig.directory)
    const image = `--set=sidecar.image.tag=${FIRST_COMMIT}`
    await rig.helm('install', 'openclaw', chart, at, local, image, ...QUICK)
  })
  after(() => close?.())

  const field = (object: string, path: string) =>
    rig.kubectl('get', object, at, `-o=jsonpath={${path}}`)
  const podUid = () => field(`pod/${GATEWAY}`, '.metadata.uid')
  const token = () => field('secret/openclaw-gateway-token', '.data.token')
  const metric = async (series: string): Promise<number> => {
    const path = `/api/v1/namespaces/${namespace}/pods/${GATEWAY}:9464/proxy/metrics`
    const { stdout } = await rig.tryKubectl(['get', '--raw', path])
    return parseMetrics(stdout).get(series) ?? Number.NaN
  }
  const sessions = () => metric(`openclaw_k8s_sessions_active{namespace="${namespace}"}`)
  const admissions = () => metric('openclaw_k8s_auth_attempts_total{result="success"}')
  const workerIsIn = async (): Promise<void> => {
    await rig.kubectl('rollout', 'status', 'statefulset/openclaw-gateway', at, '--timeout=180s')
    await waitForProcess('the worker is in', WORKER_WITHIN_MS, async () => (await sessions()) === 1)
  }

  /** The gateway's pod is replaced, its sidecar sends the worker away in order, and it comes back. */
  const changeOver = async (command: readonly string[]): Promise<void> => {
    const earlier = await podUid()
    const secret = await token()
    const log = rig.kubectl('logs', GATEWAY, at, '-c=auth-sidecar', '--follow')
    await rig.helm(...command)
    assert.match(await log, /"drained"/, 'the stream ended without a word')
    await workerIsIn()
    assert.notEqual(await podUid(), earlier)
    assert.equal(await token(), secret)
  }

  test('a worker connects with chart and image of 0.1.0', workerIsIn)

  test('the new ones send it away in order, and it comes back by itself', () =>
    changeOver(['upgrade', 'openclaw', CHART, at, local, ...QUICK]))

  test('a stream survives an upgrade that only changes what is read again', async () => {
    const reloaded = 'openclaw_k8s_config_reloads_total{outcome="ok"}'
    const [pod, admitted, reloads] = [await podUid(), await admissions(), await metric(reloaded)]
    const more = '--set=sidecar.config.k8sTrust.maxWatchStaleness=4m'
    await rig.helm('upgrade', 'openclaw', CHART, at, local, ...QUICK, more)
    await waitForProcess('it is read again', RELOADED_WITHIN_MS, async () => {
      return (await metric(reloaded)) > reloads
    })
    assert.equal(await podUid(), pod)
    assert.deepEqual([await sessions(), await admissions()], [1, admitted])
  })

  test('the way back sends it away in order too', () =>
    changeOver(['rollback', 'openclaw', '1', at]))
})
