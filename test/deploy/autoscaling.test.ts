/** Autoscaling on hosted sessions: what Prometheus is asked, and how a worker that goes finishes its turns. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import { readMetrics } from '../kit/observability-files.ts'
import { startDeployRig, type DeployRig } from './deploy-rig.ts'
import { pick } from './objects.ts'
import { CHART, render } from './render.ts'
import { fetchModule, findTool, mustRun } from './tools.ts'

const ADAPTER = {
  module: 'sigs.k8s.io/prometheus-adapter@v0.12.0',
  sum: 'h1:e29A6BIwA/NKxPZeuamBMHJsvz0sSUXTb92Obg7RMV4=',
}
const SERIES = 'openclaw_k8s_session_slots'
const MATCHERS = 'namespace="openclaw"'

const found = await startDeployRig()
const skip = 'why' in found && found.why

type Rule = {
  readonly seriesQuery: string
  readonly metricsQuery: string
  readonly name: { readonly as: string }
}
type Trigger = { readonly metadata: { readonly query: string } }
type Metric = { readonly external: { readonly metric: { readonly name: string } } }

describe('autoscaling on hosted sessions', { skip }, () => {
  const rig = found as DeployRig
  const renderWith = (provider: string) =>
    render(rig, {
      set: [
        'workers.sessionHosting.enabled=true',
        'workers.autoscaling.metric=sessions',
        `workers.autoscaling.sessions.provider=${provider}`,
        'workers.autoscaling.sessions.spareSlots=3',
      ],
    })
  const readRules = async () => {
    const objects = await renderWith('prometheus-adapter')
    const { data } = pick(objects, 'ConfigMap', 'openclaw-worker-prometheus-adapter')
    const config = parse(data?.['rules.yaml'] ?? '') as { readonly externalRules: readonly Rule[] }
    return { objects, config, rule: config.externalRules[0]! }
  }
  const readTrigger = async () => {
    const { spec } = pick(await renderWith('keda'), 'ScaledObject', 'openclaw-worker')
    return (spec as { readonly triggers: readonly Trigger[] }).triggers[0]!.metadata
  }

  test('KEDA and the adapter ask the same, of metrics that the sidecar has', async () => {
    const { rule } = await readRules()
    const asked = rule.metricsQuery
      .replaceAll('<<.Series>>', SERIES)
      .replaceAll('<<.LabelMatchers>>', MATCHERS)
    assert.equal((await readTrigger()).query, asked)
    const names = (await readMetrics()).map(({ name }) => name)
    for (const [name] of asked.matchAll(/openclaw_\w+/g)) assert.ok(names.includes(name), name)
    assert.match(rule.seriesQuery, new RegExp(`^${SERIES}{`))
  })

  test('the HorizontalPodAutoscaler asks for the metric that the rule makes', async () => {
    const { objects, rule } = await readRules()
    const { spec } = pick(objects, 'HorizontalPodAutoscaler', 'openclaw-worker')
    const { metrics } = spec as { readonly metrics: readonly Metric[] }
    assert.equal(metrics[0]?.external.metric.name, rule.name.as)
  })

  test("every key of the rule is one of the adapter's", async (t) => {
    const fetched = await fetchModule(ADAPTER)
    if ('why' in fetched) return t.skip(fetched.why)
    const source = readFileSync(join(fetched.path, 'pkg/config/config.go'), 'utf8')
    const known = new Set([...source.matchAll(/yaml:"(\w+)/g)].map(([, key = '']) => key))
    const { config } = await readRules()
    const keys = listKeys(config).filter((key) => key !== 'namespace')
    assert.ok(keys.length > 5)
    assert.deepEqual(
      keys.filter((key) => !known.has(key)),
      [],
    )
  })

  test('what is wanted is the slots in use and the spare ones, or nothing where nobody knows', async (t) => {
    const promtool = findTool('promtool')
    if ('why' in promtool) return t.skip(promtool.why)
    const { query } = await readTrigger()
    const used = (namespace: string, count: string) => ({
      series: `${SERIES}{namespace="${namespace}",state="used"}`,
      values: count,
    })
    const free = { series: `${SERIES}{namespace="openclaw",state="free"}`, values: '9' }
    const connected = (count: string) => ({
      series: 'openclaw_k8s_connected_workers{namespace="openclaw"}',
      values: count,
    })
    const cases = [
      { series: [used('openclaw', '4'), used('other', '50'), free, connected('5')], wanted: 7 },
      { series: [used('openclaw', '0'), free, connected('1')], wanted: 3 },
      { series: [used('openclaw', '0'), connected('0')], wanted: undefined },
      { series: [connected('5')], wanted: undefined },
    ]
    const tests = cases.map(({ series, wanted }) => ({
      interval: '1m',
      input_series: series,
      promql_expr_test: [
        {
          expr: query,
          eval_time: '0m',
          exp_samples: wanted === undefined ? [] : [{ labels: '{}', value: wanted }],
        },
      ],
    }))
    const file = join(rig.directory, 'wanted-slots.yaml')
    writeFileSync(file, JSON.stringify({ tests }))
    await mustRun({ path: promtool.path, args: ['test', 'rules', file] })
  })

  test('a worker that goes waits for its turns, and for nothing else', async () => {
    const directory = join(rig.directory, 'turns')
    mkdirSync(directory)
    const turn = join(directory, 'worker.mjs')
    const other = join(directory, 'other-worker.mjs')
    for (const file of [turn, other]) writeFileSync(file, 'process.stdin.resume()')
    const exits: string[] = []
    const start = (name: string, ...args: readonly string[]) => {
      const child = spawn(process.execPath, args, { stdio: ['pipe', 'ignore', 'inherit'] })
      const exited = once(child, 'exit').then(([code]) => exits.push(`${name} ${code}`))
      return { child, exited }
    }
    const [running, unrelated] = [start('turn', turn), start('other', other)]
    const waiting = start('wait', join(CHART, 'files/wait-for-turns.mjs'), '1')
    // Twice as long as it waits where there is no turn.
    const free = start('free', '--eval', 'setTimeout(() => {}, 2500)')
    await free.exited
    assert.deepEqual(exits, ['free 0'])
    running.child.stdin.end()
    await waiting.exited
    assert.deepEqual(exits, ['free 0', 'turn 0', 'wait 0'])
    unrelated.child.stdin.end()
    await unrelated.exited
  })
})

/** The keys of all objects within. */
const listKeys = (value: unknown): readonly string[] => {
  if (Array.isArray(value)) return value.flatMap((item) => listKeys(item))
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, member]) => [key, ...listKeys(member)])
}
