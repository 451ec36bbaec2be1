/** From the chart of 0.1.0 to this one and back, on the real API server, with the values of every feature. */

import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { installCrds } from './crds.ts'
import { freshName, openNamespace, startDeployRig, type DeployRig } from './deploy-rig.ts'
import { extractFirstChart, whyNoFirstChart } from './first-chart.ts'
import { CHART } from './render.ts'

const found = await startDeployRig()
const skip = 'why' in found ? found.why : (whyNoFirstChart() ?? false)

type Listed = {
  readonly items: readonly {
    readonly kind: string
    readonly metadata: { readonly name: string; readonly uid: string }
    readonly data?: unknown
    readonly spec?: { readonly template?: unknown }
  }[]
}

const WORKLOADS = 'statefulsets,deployments'
/** What an upgrade of a feature must say as well: a default that has changed since, as the changelog tells. */
const CHANGED: Readonly<Record<string, readonly string[]>> = {
  'sidecar-only': ['--set=workers.enabled=true'],
}
/** What other things know by its name, or what is lost with it. */
const KEPT = `${WORKLOADS},services,serviceaccounts,secrets`

describe('an upgrade from 0.1.0', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const at = `--namespace=${namespace}`
  const first = skip === false ? extractFirstChart(rig.directory) : { chart: '', features: [] }
  let close: () => Promise<void>
  let noCrds: string | undefined

  before(async () => {
    close = await openNamespace(rig, namespace)
    noCrds = await installCrds(rig.api)
  })
  after(() => close?.())

  const list = async (kinds: string): Promise<Listed['items']> => {
    const json = await rig.kubectl('get', kinds, at, '-o=json')
    return (JSON.parse(json) as Listed).items
  }
  const templates = async () =>
    (await list(WORKLOADS)).map(({ metadata, spec }) => [metadata.name, spec?.template])
  const secrets = async () =>
    (await list('secrets'))
      .filter(({ metadata }) => !metadata.name.startsWith('sh.helm.'))
      .map(({ metadata, data }) => [metadata.name, data])
  const identities = async () =>
    new Map(
      (await list(KEPT)).map(({ kind, metadata }) => [`${kind}/${metadata.name}`, metadata.uid]),
    )

  for (const values of first.features) {
    const feature = basename(values, '-values.yaml')
    test(`with the values of ${feature}: nothing is replaced, and it goes back`, async (t) => {
      if (noCrds !== undefined) return t.skip(noCrds)
      await rig.helm('install', feature, first.chart, at, `--values=${values}`)
      const [old, drawn, earlier] = [await identities(), await secrets(), await templates()]
      const more = [at, `--values=${values}`, ...(CHANGED[feature] ?? [])]
      const upgraded = await rig.tryHelm('upgrade', feature, CHART, ...more)
      assert.equal(upgraded.code, 0, upgraded.stderr)
      assert.doesNotMatch(upgraded.stderr, /warning/i)
      const upgradedTo = await identities()
      for (const [name, uid] of old) {
        // Helm keeps each revision in a Secret.
        if (!name.startsWith('Secret/sh.helm.')) assert.equal(upgradedTo.get(name), uid, name)
      }
      assert.deepEqual(await secrets(), drawn, 'the token and the device seed stay')
      await rig.helm('rollback', feature, '1', at)
      assert.deepEqual(await templates(), earlier)
      assert.deepEqual(await secrets(), drawn)
      await rig.helm('uninstall', feature, at)
    })
  }
})
