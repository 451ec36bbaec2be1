/** Real pods from every template, in a namespace that enforces the strictest Pod Security Standard. */

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { waitForProcess } from '../kit/wait.ts'
import {
  parseObjects,
  pick,
  templateOf,
  type KubeObject,
  type PodTemplate,
  type Volume,
} from './objects.ts'
import { CHART, CI_VALUES, render } from './render.ts'
import { freshName, openNamespace, startDeployRig, type DeployRig } from './deploy-rig.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

const PODS_WITHIN_MS = 30_000

describe('pod security', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const at = `--namespace=${namespace}`
  /** Where pods are made one by one. */
  const bare = freshName('openclaw-test')
  const within = `/api/v1/namespaces/${bare}`
  const closes: (() => Promise<void>)[] = []

  before(async () => {
    for (const name of [namespace, bare]) closes.push(await openNamespace(rig, name))
  })
  after(async () => {
    for (const close of closes) await close()
  })

  /** What the server answers to a pod of this template. */
  const create = async ({ metadata = {}, spec }: PodTemplate) => {
    const account = { metadata: { name: spec.serviceAccountName ?? 'default' } }
    await rig.api.call({ method: 'POST', path: `${within}/serviceaccounts`, body: account })
    const body = {
      metadata: { labels: metadata.labels, generateName: 'pod-' },
      spec: { ...spec, volumes: [...(spec.volumes ?? []), ...claimed(spec)] },
    }
    const answer = await rig.api.call({ method: 'POST', path: `${within}/pods`, body })
    return { status: answer.status, message: JSON.stringify(answer.body['message']) }
  }
  const names = async (kind: string) => rig.kubectl('get', kind, at, '-o=name')

  test('a pod of every template of every feature is taken', async () => {
    let pods = 0
    for (const values of [[], ...CI_VALUES.map((name) => [join(CHART, 'ci', name)])]) {
      for (const object of await render(rig, { namespace: bare, values })) {
        const template = templateOf(object)
        if (template === undefined) continue
        const { status, message } = await create(template)
        assert.equal(
          status,
          201,
          `${values.join()} ${object.kind}/${object.metadata.name}: ${message}`,
        )
        pods += 1
      }
    }
    assert.ok(pods > 2 * CI_VALUES.length, `${pods} pods`)
  })

  test('a template loosened in any way is not: the standard is enforced', async () => {
    const objects = await render(rig, { namespace: bare })
    const template = templateOf(pick(objects, 'StatefulSet', 'openclaw-gateway'))
    assert.ok(template)
    for (const [what, loosen] of LOOSENED) {
      const { status, message } = await create(loosen(template))
      assert.equal(status, 403, what)
      assert.match(message, /violates PodSecurity \\"restricted:latest\\"/, what)
    }
  })

  describe('an installed release', () => {
    before(() => rig.helm('install', 'openclaw', CHART, at))

    test('gets its pods from the controllers, and its volume', async () => {
      await waitForProcess('the pods', PODS_WITHIN_MS, async () => {
        const pods = await names('pods')
        return /^pod\/openclaw-gateway-0$/m.test(pods) && /^pod\/openclaw-worker-/m.test(pods)
      })
      assert.match(await names('persistentvolumeclaims'), /state-openclaw-gateway-0/)
    })

    test('that violates the standard is accepted but gets no pods: that is why the test asks for pods', async () => {
      const loose = '--set=workers.podSecurityContext.runAsNonRoot=null'
      const looser = '--set=workers.securityContext.runAsNonRoot=null'
      await rig.helm('install', 'loose', CHART, at, loose, looser)
      await waitForProcess('the refusal', PODS_WITHIN_MS, async () => {
        const path = '-o=jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].message}'
        const message = await rig.kubectl('get', 'deployment/loose-openclaw-worker', at, path)
        return /violates PodSecurity "restricted:latest"/.test(message)
      })
      assert.doesNotMatch(await names('pods'), /loose-openclaw-worker/)
    })
  })

  test('an existing gateway is patched as the notes say, and its pod is created', async () => {
    const values = `--values=${join(CHART, 'ci/sidecar-only-values.yaml')}`
    await rig.tryKubectl(['apply', at, '--filename=-'], JSON.stringify(OWN_GATEWAY))
    const said = await rig.helm('install', 'beside', CHART, at, values)
    const commands = said
      .split('\n')
      .filter((line) => /^ +kubectl .*(patch\.yaml|--patch-file)/.test(line))
    assert.equal(commands.length, 2, said)
    const directory = JSON.stringify(rig.directory)
    const { code, stderr } = await rig.shell([`cd ${directory}`, ...commands].join('\n'))
    assert.equal(code, 0, stderr)
    await waitForProcess('the patched pod', PODS_WITHIN_MS, async () => {
      const path = '-o=jsonpath={.items[*].spec.initContainers[*].name}'
      const sidecars = await rig.kubectl('get', 'pods', at, '--selector=app=my-gateway', path)
      return sidecars.includes('auth-sidecar')
    })
    const json = await rig.kubectl('get', 'deployment/my-gateway', at, '-o=json')
    const template = templateOf(parseObjects(json)[0] as KubeObject)
    assert.equal(template?.spec.automountServiceAccountToken, false)
    assert.deepEqual(
      template?.spec.containers.map(({ name }) => name),
      ['gateway'],
    )
  })
})

/** A StatefulSet's controller adds the volumes it has claimed. */
const claimed = (spec: PodTemplate['spec']) => {
  const there = spec.volumes?.map(({ name }) => name)
  const mounted = spec.containers.flatMap((each) => each.volumeMounts ?? []).map(({ name }) => name)
  return mounted
    .filter((name) => !there?.includes(name))
    .map((name) => ({ name, persistentVolumeClaim: { claimName: name } }))
}

type Loosened = readonly [string, (template: PodTemplate) => PodTemplate]

const ofPod =
  (changes: object) =>
  (template: PodTemplate): PodTemplate => ({
    ...template,
    spec: { ...template.spec, ...changes },
  })
const ofContainer =
  (changes: object) =>
  (template: PodTemplate): PodTemplate =>
    ofPod({
      containers: template.spec.containers.map((each) => ({
        ...each,
        securityContext: { ...each.securityContext, ...changes },
      })),
    })(template)

const ofVolume =
  (volume: Volume) =>
  (template: PodTemplate): PodTemplate =>
    ofPod({ volumes: [...(template.spec.volumes ?? []), volume] })(template)

const LOOSENED: readonly Loosened[] = [
  ['no seccomp profile', ofPod({ securityContext: { runAsNonRoot: true } })],
  ['root', ofContainer({ runAsNonRoot: false })],
  ['privilege escalation', ofContainer({ allowPrivilegeEscalation: true })],
  ['a capability', ofContainer({ capabilities: { add: ['NET_ADMIN'], drop: ['ALL'] } })],
  ['capabilities kept', ofContainer({ capabilities: {} })],
  ['the network of the node', ofPod({ hostNetwork: true })],
  ['a directory of the node', ofVolume({ name: 'a', hostPath: { path: '/' } })],
]

const OWN_GATEWAY = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'my-gateway' },
  spec: {
    selector: { matchLabels: { app: 'my-gateway' } },
    template: {
      metadata: { labels: { app: 'my-gateway' } },
      spec: {
        securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
        containers: [
          {
            name: 'gateway',
            image: 'gateway:1',
            securityContext: {
              runAsUser: 1000,
              allowPrivilegeEscalation: false,
              capabilities: { drop: ['ALL'] },
            },
          },
        ],
      },
    },
  },
}
