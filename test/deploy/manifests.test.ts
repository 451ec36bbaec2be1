/** The raw manifests, by the documented steps on the real API server; and what the chart has to do with them. */

import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { isMatch } from './label-selector.ts'
import { renderManifests, secretCommand } from '../tools/manifests.ts'
import { containersOf, ofKind, parseObjects, pick, templateOf } from './objects.ts'
import { NAMESPACE, render } from './render.ts'
import { startDeployRig, removeNamespace, type DeployRig } from './deploy-rig.ts'
import { findHelm } from './tools.ts'
import { waitForProcess } from '../kit/wait.ts'
import { keepTrackOf } from '../kit/leftovers.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

const MANIFESTS = join(import.meta.dirname, '../../manifests')
const EXAMPLE = join(MANIFESTS, 'overlays/example')
const PODS_WITHIN_MS = 30_000

describe('manifests', { skip }, () => {
  const rig = found as DeployRig
  const read = (path: string) => readFileSync(join(MANIFESTS, path), 'utf8')
  const apply = (path = MANIFESTS) => rig.kubectl('apply', '--filename', path)
  const inside = (...args: readonly string[]) => rig.kubectl('-n', NAMESPACE, ...args)

  test('they are what the chart makes of its values', async () => {
    const helm = await findHelm()
    assert.ok('path' in helm)
    for (const [path, text] of renderManifests(helm.path)) assert.equal(read(path), text, path)
  })

  test('none of them holds a Secret', () => {
    for (const name of [
      'namespace',
      'rbac',
      'gateway-config',
      'gateway',
      'worker',
      'networkpolicy',
    ]) {
      assert.deepEqual(ofKind(parseObjects(read(`${name}.yaml`)), 'Secret'), [], name)
    }
  })

  describe('on a cluster', () => {
    let close = async () => {}

    before(async () => {
      // They name their namespace, and existing objects in it must not be touched.
      const { code } = await rig.tryKubectl(['get', 'namespace', NAMESPACE])
      assert.notEqual(code, 0, `the server has a namespace ${NAMESPACE} already`)
      close = keepTrackOf(() => removeNamespace(rig.api, NAMESPACE))
    })
    after(() => close())

    test('namespace, Secret, everything: the documented steps are accepted', async () => {
      await apply(join(MANIFESTS, 'namespace.yaml'))
      await rig.shell(secretCommand(read('gateway-config.yaml')))
      const { code, stdout, stderr } = await rig.tryKubectl(['apply', '--filename', MANIFESTS])
      assert.equal(code, 0, stderr)
      assert.doesNotMatch(stderr, /warning/i, 'also what the server only warns of')
      assert.equal(stdout.match(/ created$/gm)?.length, objects().length - 1, stdout)
    })

    test('a second time changes nothing, and the Secret least of all', async () => {
      const secret = () => inside('get', 'secret', 'openclaw-gateway-token', '-o=json')
      const secretBefore = await secret()
      const lines = (await apply()).trim().split('\n')
      assert.deepEqual(
        lines.filter((line) => !line.endsWith(' unchanged')),
        [],
      )
      assert.equal(lines.length, objects().length)
      assert.equal(await secret(), secretBefore)
      await rig.kubectl('diff', '--filename', MANIFESTS)
    })

    test('a second time does not undo what the autoscaler, or an operator, has scaled', async () => {
      await inside('scale', 'deployment/openclaw-worker', '--replicas=5')
      await apply()
      const replicas = await inside(
        'get',
        'deployment/openclaw-worker',
        '-o=jsonpath={.spec.replicas}',
      )
      assert.equal(replicas, '5')
    })

    test('the pods are made, under the Pod Security the namespace enforces', async () => {
      await waitForProcess('the pods', PODS_WITHIN_MS, async () => {
        const names = await inside('get', 'pods', '-o=name')
        return /openclaw-gateway-0/.test(names) && /openclaw-worker-/.test(names)
      })
    })

    test('an existing gateway gets its sidecar from the component, and its pod is created', async () => {
      await rig.kubectl('apply', '--kustomize', EXAMPLE)
      await waitForProcess('its pod', PODS_WITHIN_MS, async () => {
        const names = await inside('get', 'pods', '--selector=app=my-gateway', '-o=name')
        return names.startsWith('pod/my-gateway-')
      })
    })

    test('a pod waits for a missing Secret, which is not made up', () => {
      const text = read('gateway.yaml')
      assert.ok(text.includes('openclaw-gateway-token'))
      assert.ok(!/optional: true/.test(text))
    })
  })

  describe('the patch for an existing gateway', () => {
    const running = readFileSync(join(import.meta.dirname, 'running-gateway.yaml'), 'utf8')
    const renderer = join(import.meta.dirname, '../../examples/existing-gateway/post-renderer')
    const values = [
      'gateway.enabled=false',
      'gateway.existingSecret=my-gateway-token',
      'existingGateway.kind=Deployment',
      'existingGateway.name=my-gateway',
      'existingGateway.container=gateway',
    ]
    let patch: string

    before(async () => {
      const made = ofKind(await render(rig, { set: values }), 'ConfigMap')
      patch = made.flatMap(({ data }) => data?.['patch.yaml'] ?? []).join()
    })

    /** The sidecar is there, and no probe goes over the network. */
    const isPatched = (text: string): void => {
      const of = templateOf(pick(parseObjects(text), 'Deployment', 'my-gateway'))
      assert.deepEqual(
        containersOf(of ?? { spec: { containers: [] } }).map(({ name }) => name),
        ['auth-sidecar', 'gateway'],
      )
      const [gateway] = of?.spec.containers ?? []
      for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe'] as const) {
        const handlers = Object.keys(gateway?.[probe] ?? {}).filter((key) => !/[A-Z]/.test(key))
        assert.deepEqual(handlers, ['exec'], probe)
      }
    }

    test('is a kustomize patch', async () => {
      const directory = join(rig.directory, 'kustomize')
      mkdirSync(directory)
      writeFileSync(join(directory, 'my-gateway.yaml'), running)
      writeFileSync(join(directory, 'auth-sidecar-patch.yaml'), patch)
      writeFileSync(
        join(directory, 'kustomization.yaml'),
        'resources: [my-gateway.yaml]\npatches: [{ path: auth-sidecar-patch.yaml }]\n',
      )
      isPatched(await rig.kubectl('kustomize', directory))
    })

    test("is kept by the post-renderer, whenever the gateway's own chart is rendered", async () => {
      const directory = join(rig.directory, 'own-chart')
      mkdirSync(join(directory, 'templates'), { recursive: true })
      writeFileSync(join(directory, 'Chart.yaml'), 'apiVersion: v2\nname: own\nversion: 1.0.0\n')
      writeFileSync(join(directory, 'templates/gateway.yaml'), running)
      const plugin = join(rig.directory, 'post-renderer')
      cpSync(renderer, plugin, { recursive: true })
      writeFileSync(join(plugin, 'auth-sidecar-patch.yaml'), patch)
      const script =
        `helm plugin install ${plugin} >&2\n` +
        `helm template own ${directory} --post-renderer auth-sidecar-patch`
      const { code, stdout, stderr } = await rig.shell(script)
      assert.equal(code, 0, stderr)
      isPatched(stdout)
    })
  })

  describe('the kustomize component', () => {
    test('adds the sidecar to a gateway that exists, and leaves the gateway as it was', async () => {
      const made = parseObjects(await rig.kubectl('kustomize', EXAMPLE))
      const original = parseObjects(read('overlays/example/gateway.yaml'))
      const workload = original.find((each) => templateOf(each) !== undefined)
      assert.ok(workload)
      const { kind, metadata } = workload
      const template = templateOf(workload)
      const patched = templateOf(pick(made, kind, metadata.name))
      assert.ok(template && patched)
      const names = containersOf(patched).map(({ name }) => name)
      assert.deepEqual(names, ['auth-sidecar', ...containersOf(template).map(({ name }) => name)])
      assert.deepEqual(patched.spec.containers, template.spec.containers)
      const services = ofKind(made, 'Service').filter(({ spec }) =>
        isMatch(
          { matchLabels: spec?.['selector'] as Record<string, string> },
          patched.metadata?.labels ?? {},
        ),
      )
      assert.ok(
        services.some(({ spec }) => JSON.stringify(spec).includes('18443')),
        'a way to it',
      )
      assert.ok(
        ofKind(made, 'ServiceAccount').some(
          (each) => each.metadata.name === patched.spec.serviceAccountName,
        ),
      )
    })

    test('has exactly the configuration, container and rights of the chart', async () => {
      const made = parseObjects(await rig.kubectl('kustomize', EXAMPLE))
      const configs = ofKind(made, 'ConfigMap').map(({ data }) => data?.['config.yaml'])
      assert.ok(configs.includes(read('components/sidecar/config.yaml')))
    })
  })

  const objects = () =>
    ['namespace', 'rbac', 'gateway-config', 'gateway', 'worker', 'networkpolicy'].flatMap((name) =>
      parseObjects(read(`${name}.yaml`)),
    )
})
