/** The chart passes lint, schemas and unit suites, and matches its README and the code. */

import assert from 'node:assert/strict'
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { jsonSchema } from '@openclaw-k8s/auth-sidecar/config/schema.ts'
import { installCrds } from './crds.ts'
import { CHART, CI_VALUES, render, renderText, templateArgs } from './render.ts'
import { SCHEMA_LOCATION, writeSchemas } from './schemas.ts'
import { renderValuesSchema } from '../tools/values-schema.ts'
import { startDeployRig, type DeployRig } from './deploy-rig.ts'
import { buildTool, findTool, mustRun, run } from './tools.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

describe('chart', { skip }, () => {
  const rig = found as DeployRig
  const ciFiles = CI_VALUES.map((name) => join(CHART, 'ci', name))
  /** The chart's own values, and each feature's. */
  const variants = [
    [],
    [join(CHART, 'values-local.yaml')],
    ...ciFiles.map((file) => [file]),
  ] as const

  test('helm lint has nothing to say, whatever values', async () => {
    for (const values of variants) {
      const flags = values.map((file) => `--values=${file}`)
      await rig.helm('lint', '--strict', CHART, ...flags)
    }
  })

  test('there is a values file for every feature, and each of them makes a difference', async () => {
    const plain = await renderText(rig, { set: ['gateway.token=the-token-of-the-gateway'] })
    for (const file of ciFiles.filter((each) => !each.endsWith('/default-values.yaml'))) {
      const text = await renderText(rig, {
        values: [file],
        set: ['gateway.token=the-token-of-the-gateway'],
      })
      assert.notEqual(withoutChance(text), withoutChance(plain), file)
    }
    assert.ok(ciFiles.length > 5)
  })

  describe('against the schemas of the API server', () => {
    let schemas: string
    let noCrds: string | undefined
    const kubeconform = findTool('kubeconform')

    before(async () => {
      schemas = join(rig.directory, 'schemas')
      noCrds = await installCrds(rig.api)
      assert.ok((await writeSchemas(rig.api, schemas)) > 50)
    })

    const validate = (input: string) => {
      assert.ok('path' in kubeconform)
      const args = ['-strict', '-summary', '-schema-location', join(schemas, SCHEMA_LOCATION), '-']
      return run({ path: kubeconform.path, args, input })
    }

    test('every object of every feature conforms, strictly', async (t) => {
      if ('why' in kubeconform) return t.skip(kubeconform.why)
      if (noCrds !== undefined) return t.skip(noCrds)
      for (const values of variants) {
        const { code, stdout, stderr } = await validate(await renderText(rig, { values }))
        assert.equal(code, 0, `${values.join()}: ${stdout}${stderr}`)
        assert.match(stdout, /Valid: [1-9]\d*, Invalid: 0, Errors: 0, Skipped: 0/)
      }
    })

    test('a misspelled field, a wrong type and an unknown kind do not', async (t) => {
      if ('why' in kubeconform) return t.skip(kubeconform.why)
      const text = await renderText(rig, { set: ['networkPolicy.enabled=true'] })
      const wrong = [
        text.replace('podSelector:', 'podSelectors:'),
        text.replace(/containerPort: \d+/, 'containerPort: eighty'),
        text.replace('kind: NetworkPolicy', 'kind: NetworkPolice'),
      ]
      for (const each of wrong) {
        assert.notEqual(each, text)
        assert.notEqual((await validate(each)).code, 0)
      }
    })
  })

  test('on a cluster without the optional kinds the missing ones are named', async () => {
    for (const kind of ['podMonitor', 'serviceMonitor', 'prometheusRule']) {
      const set = [`monitoring.${kind}.enabled=true`]
      const flags = templateArgs({ set })
      const { code, stderr } = await rig.tryHelm('template', ...flags)
      assert.notEqual(code, 0, `${kind} cannot be made there`)
      assert.match(stderr, new RegExp(kind, 'i'))
    }
    const assumed = ['monitoring.podMonitor.enabled=true', 'monitoring.assumeCrds=true']
    const objects = await render(rig, { set: assumed, withCrds: false })
    assert.equal(objects.filter(({ kind }) => kind === 'PodMonitor').length, 1)
  })

  test('a wrong value is refused, and the message names its key', async () => {
    const cases = [
      ['gateway.tokn=a', 'tokn'],
      ['sidecar.config.k8sTrust.foo=1', 'foo'],
      ['sidecar.config.k8sTrust.sourceAddress=perhaps', 'sourceAddress'],
      ['sidecar.config.limits.messageBytes=many', 'messageBytes'],
      ['workers.autoscaling.maxReplicas=many', 'maxReplicas'],
      ['workers.autoscaling.metric=memory', 'metric'],
      ['workers.autoscaling.sessions.provider=somebody', 'provider'],
      ['workers.autoscaling.sessions.slotsPerWorker=0', 'slotsPerWorker'],
      ['networkPolicy.enabled=perhaps', 'networkPolicy'],
      ['image.pullPolicy=Sometimes', 'pullPolicy'],
      ['unheardOf=1', 'unheardOf'],
    ] as const
    for (const [set, key] of cases) {
      const { code, stderr } = await rig.tryHelm('template', ...templateArgs({ set: [set] }))
      assert.notEqual(code, 0, `${set} is taken`)
      assert.ok(stderr.includes(key), `${set}: ${stderr}`)
    }
  })

  test("the values' schema is that of the values and of the sidecar, closed all the way down", () => {
    const file = readFileSync(join(CHART, 'values.schema.json'), 'utf8')
    assert.equal(file, renderValuesSchema(readFileSync(join(CHART, 'values.yaml'), 'utf8')))
    const schema = JSON.parse(file) as Schema
    assert.deepEqual(openPaths(schema), [], 'objects that take any key')
    const { properties } = schema.properties?.['sidecar']?.properties?.['config'] ?? {}
    assert.deepEqual(properties, jsonSchema()['properties'])
  })

  test("helm-unittest: the chart's unit suites pass", async (t) => {
    const tool = await buildTool('helm-unittest')
    if ('why' in tool) return t.skip(tool.why)
    const suites = join('tests', '*_test.yaml')
    const args = ['--strict', '--file', suites, CHART]
    const output = await mustRun({ path: tool.path, args })
    const total = Number(/^Tests: +(\d+) passed, \1 total$/m.exec(output)?.[1])
    assert.ok(total > 0, output)
    t.diagnostic(`${total} unit tests`)
  })

  test('helm-docs would write the same README', async (t) => {
    const tool = await buildTool('helm-docs')
    if ('why' in tool) return t.skip(tool.why)
    const copy = join(rig.directory, 'docs', 'openclaw')
    cpSync(CHART, copy, { recursive: true })
    writeFileSync(join(copy, 'README.md'), '')
    await mustRun({
      path: tool.path,
      args: ['--chart-search-root', copy, '--log-level', 'warning'],
    })
    assert.equal(
      readFileSync(join(copy, 'README.md'), 'utf8'),
      readFileSync(join(CHART, 'README.md'), 'utf8'),
    )
  })

  test('the notes give the next commands, with the names of what was created', async () => {
    for (const release of ['openclaw', 'foo']) {
      const args = ['install', ...templateArgs({ release, namespace: 'somewhere' })]
      const text = await rig.helm(...args, '--dry-run=client')
      const fullname = release === 'openclaw' ? 'openclaw' : 'foo-openclaw'
      const notes = text.slice(text.indexOf('NOTES:'))
      assert.match(notes, /kubectl /)
      assert.ok(notes.includes('somewhere'), notes)
      assert.ok(notes.includes(`${fullname}-gateway`), notes)
      assert.ok(!/\$\{?[a-z]+\}?|<no value>|\{\{/.test(notes.replaceAll(/\$\(.*\)/g, '')), notes)
    }
  })

  test('everything the chart reads is packed with it', async () => {
    const packed = join(rig.directory, 'packed')
    await rig.helm('package', CHART, `--destination=${packed}`)
    const [name = '', ...others] = readdirSync(packed)
    assert.match(name, /^openclaw-\d+\.\d+\.\d+\.tgz$/)
    assert.deepEqual(others, [])
    const archive = join(packed, name)
    const seed = ['--set', 'gateway.token=the-token-of-the-gateway']
    const [, , ...rest] = templateArgs()
    const text = await rig.helm('template', 'openclaw', archive, ...rest, ...seed)
    assert.equal(
      withoutChance(text),
      withoutChance(
        await renderText(rig, {
          set: ['gateway.token=the-token-of-the-gateway'],
          withCrds: false,
        }),
      ),
    )
  })
})

type Schema = {
  readonly type?: unknown
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: unknown
}

/** Objects with listed fields that take others as well. */
const openPaths = (schema: Schema, path = ''): readonly string[] => [
  ...(schema.properties !== undefined && schema.additionalProperties !== false ? [path] : []),
  ...Object.entries(schema.properties ?? {}).flatMap(([name, each]) =>
    openPaths(each, `${path}.${name}`),
  ),
]

/** Without the values that are random each time. */
const withoutChance = (text: string): string =>
  text.replaceAll(/^( +(?:device-seed|token|checksum\/[a-z-]+): ).*$/gm, '$1…')
