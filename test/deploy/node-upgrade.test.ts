/** From the chart of 0.1.0 to this one and back, on a node, with a worker that is connected all the time it can be. */

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { waitForProcess } from '../kit/wait.ts'
import { freshName, openNamespace, type DeployRig } from './deploy-rig.ts'
import { extractFirstChart, whyNoFirstChart } from './first-chart.ts'
import { startNodeRig } from './node-rig.ts'
import { CHART } from './render.ts'

const WORKER_WITHIN_MS = 150_000
const GATEWAY = 'openclaw-gateway-0'
/** A short drain, for the time a test has. */
const QUICK = ['sidecar.config.drain.window=4s', 'gateway.preStopSleepSeconds=6'].map(
  (each) => `--set=${each}`,
)

const found = await startNodeRig()
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
    await rig.helm('install', 'openclaw', chart, at, local, ...QUICK)
  })
  after(() => close?.())

  const field = (object: string, path: string) =>
    rig.kubectl('get', object, at, `-o=jsonpath={${path}}`)
  const sessions = async (): Promise<number> => {
    const path = `/api/v1/namespaces/${namespace}/pods/${GATEWAY}:9464/proxy/metrics`
    const { stdout } = await rig.tryKubectl(['get', '--raw', path])
    return Number(/^openclaw_k8s_sessions_active\{[^}]*\} (\d+)$/m.exec(stdout)?.[1] ?? Number.NaN)
  }
  const workerIsIn = async (): Promise<void> => {
    await rig.kubectl('rollout', 'status', 'statefulset/openclaw-gateway', at, '--timeout=180s')
    await waitForProcess('the worker is in', WORKER_WITHIN_MS, async () => (await sessions()) === 1)
  }
  const token = () => field('secret/openclaw-gateway-token', '.data.token')

  /** The gateway's pod is replaced, its sidecar sends the worker away in order, and it comes back. */
  const changeOver = async (command: readonly string[]): Promise<void> => {
    const earlier = await field(`pod/${GATEWAY}`, '.metadata.uid')
    const log = rig.kubectl('logs', GATEWAY, at, '-c=auth-sidecar', '--follow')
    const secret = await token()
    await rig.helm(...command)
    const lines = await log
    assert.match(lines, /"drained"/, 'the stream ended without a word')
    await workerIsIn()
    assert.notEqual(await field(`pod/${GATEWAY}`, '.metadata.uid'), earlier)
    assert.equal(await token(), secret)
  }

  test('a worker connects with the chart of 0.1.0', workerIsIn)

  test('the new chart sends it away with 1012, and it comes back by itself', () =>
    changeOver(['upgrade', 'openclaw', CHART, at, local, ...QUICK]))

  test('so does the way back', () => changeOver(['rollback', 'openclaw', '1', at]))
})
