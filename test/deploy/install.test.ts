/** The whole life of a release on the real API server: install, upgrade, rollback, uninstall, and install again. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { join } from 'node:path'
import { CHART, CI_VALUES } from './render.ts'
import { installCrds } from './crds.ts'
import { freshName, openNamespace, startDeployRig, type DeployRig } from './deploy-rig.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

type Secret = { readonly data: Readonly<Record<string, string>> }
type Listed = {
  readonly items: readonly { readonly kind: string; readonly metadata: { readonly name: string } }[]
}

/** What a release makes, in its namespace and cluster-wide. */
const KINDS =
  'statefulsets,deployments,horizontalpodautoscalers,poddisruptionbudgets,' +
  'services,configmaps,serviceaccounts,networkpolicies,roles,rolebindings'
const CLUSTER_KINDS = 'clusterroles,clusterrolebindings'

describe('a release', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const at = `--namespace=${namespace}`
  let close: () => Promise<void>

  before(async () => {
    close = await openNamespace(rig, namespace)
  })
  after(() => close?.())

  /** The data of everything secret a release has. */
  const secretsOf = async (fullname: string): Promise<Secret['data']> => {
    const names = [`${fullname}-gateway-token`, `${fullname}-auth-sidecar-device-seed`]
    const json = await rig.kubectl('get', 'secret', ...names, at, '-o=json')
    const { items } = JSON.parse(json) as { readonly items: readonly Secret[] }
    return Object.assign({}, ...items.map(({ data }) => data)) as Secret['data']
  }
  const field = (object: string, path: string) =>
    rig.kubectl('get', object, at, `-o=jsonpath={${path}}`)
  const generations = async (fullname: string) =>
    Promise.all([
      field(`statefulset/${fullname}-gateway`, '.metadata.generation'),
      field(`deployment/${fullname}-worker`, '.metadata.generation'),
    ])
  const templatesOf = async (fullname: string) =>
    Promise.all([
      field(`statefulset/${fullname}-gateway`, '.spec.template'),
      field(`deployment/${fullname}-worker`, '.spec.template'),
    ])
  const ownedBy = async (release: string): Promise<readonly string[]> => {
    const selector = `--selector=app.kubernetes.io/instance=${release},app.kubernetes.io/managed-by=Helm`
    const inside = await rig.kubectl('get', KINDS, at, selector, '-o=json')
    const beside = await rig.kubectl('get', CLUSTER_KINDS, selector, '-o=json')
    const mine = (JSON.parse(beside) as Listed).items.filter(({ metadata }) =>
      metadata.name.startsWith(`${namespace}:`),
    )
    return [...(JSON.parse(inside) as Listed).items, ...mine].map(
      ({ kind, metadata }) => `${kind}/${metadata.name}`,
    )
  }
  const upgrade = (release: string, ...flags: readonly string[]) =>
    rig.helm('upgrade', release, CHART, at, ...flags)

  for (const [release, fullname] of [
    ['openclaw', 'openclaw'],
    ['foo', 'foo-openclaw'],
  ] as const) {
    describe(release, () => {
      let drawn: Secret['data']

      test('is accepted under enforced restricted Pod Security, without a warning', async () => {
        const args = ['install', release, CHART, at, '--create-namespace']
        const { code, stderr } = await rig.tryHelm(...args)
        assert.equal(code, 0, stderr)
        assert.doesNotMatch(stderr, /warning/i)
        drawn = await secretsOf(fullname)
        assert.deepEqual(Object.keys(drawn).sort(), ['device-seed', 'token'])
        assert.ok((await ownedBy(release)).length >= 12)
      })

      test('an upgrade without a change restarts nothing and keeps the token', async () => {
        const earlier = await generations(fullname)
        await upgrade(release)
        assert.deepEqual(await generations(fullname), earlier)
        assert.deepEqual(await secretsOf(fullname), drawn)
      })

      test('an upgrade with another token keeps the existing one, so that the gateway and the sidecar agree', async () => {
        const earlier = await templatesOf(fullname)
        await upgrade(release, '--set=gateway.token=another-token-than-the-drawn')
        assert.deepEqual(await secretsOf(fullname), drawn)
        assert.deepEqual(await templatesOf(fullname), earlier)
      })

      test("an upgrade of the gateway's configuration restarts it, one of the sidecar's does not", async () => {
        const earlier = await templatesOf(fullname)
        await upgrade(release, '--set=sidecar.config.k8sTrust.auditLog=false')
        assert.deepEqual(await templatesOf(fullname), earlier)
        const config = await field(`configmap/${fullname}-auth-sidecar`, '.data.config\\.yaml')
        assert.match(config, /auditLog: false/)
        await upgrade(release, '--set=gateway.config.logging.level=debug')
        const [gateway, worker] = await templatesOf(fullname)
        assert.notEqual(gateway, earlier[0])
        assert.equal(worker, earlier[1])
      })

      test('an upgrade does not undo what the autoscaler, or an operator, has scaled', async () => {
        await rig.kubectl('scale', `deployment/${fullname}-worker`, '--replicas=5', at)
        await upgrade(release, '--set=workers.env[0].name=A', '--set=workers.env[0].value=b')
        assert.equal(await field(`deployment/${fullname}-worker`, '.spec.replicas'), '5')
      })

      test('a rollback brings the first revision back, and keeps the token', async () => {
        await rig.helm('rollback', release, '1', at)
        const config = await field(`configmap/${fullname}-auth-sidecar`, '.data.config\\.yaml')
        assert.doesNotMatch(config, /auditLog/)
        assert.deepEqual(await secretsOf(fullname), drawn)
      })

      test('a deleted Secret gets a new token, and the gateway is restarted with it', async () => {
        const [earlier] = await templatesOf(fullname)
        await rig.kubectl('delete', 'secret', `${fullname}-gateway-token`, at)
        await upgrade(release)
        const renewed = await secretsOf(fullname)
        assert.notEqual(renewed['token'], drawn['token'])
        assert.equal(renewed['device-seed'], drawn['device-seed'], 'no device is orphaned')
        assert.notEqual((await templatesOf(fullname))[0], earlier)
        drawn = renewed
      })

      test('an uninstall leaves the Secrets and the state, and nothing else', async () => {
        const claims = await rig.kubectl('get', 'persistentvolumeclaims', at, '-o=name')
        assert.match(claims, new RegExp(`state-${fullname}-gateway-0`))
        await rig.helm('uninstall', release, at)
        assert.deepEqual(await ownedBy(release), [])
        assert.deepEqual(await secretsOf(fullname), drawn)
        assert.equal(await rig.kubectl('get', 'persistentvolumeclaims', at, '-o=name'), claims)
      })

      test('a release of that name finds them again', async () => {
        await rig.helm(
          'install',
          release,
          CHART,
          at,
          '--set=gateway.token=another-token-than-the-drawn',
        )
        assert.deepEqual(await secretsOf(fullname), drawn)
      })
    })
  }

  test('two releases live in one namespace', async () => {
    const [one, other] = [await ownedBy('openclaw'), await ownedBy('foo')]
    assert.equal(one.length, other.length)
    assert.deepEqual(
      one.filter((each) => other.includes(each)),
      [],
    )
  })

  test('the server takes what every feature makes', async (t) => {
    const noCrds = await installCrds(rig.api)
    if (noCrds !== undefined) return t.skip(noCrds)
    assert.ok(CI_VALUES.length > 0)
    for (const name of CI_VALUES) {
      const values = `--values=${join(CHART, 'ci', name)}`
      const { code, stderr } = await rig.tryHelm('install', 'feature', CHART, at, values)
      assert.equal(code, 0, `${name}: ${stderr}`)
      assert.doesNotMatch(stderr, /warning/i, name)
      await rig.helm('uninstall', 'feature', at)
      assert.deepEqual(await ownedBy('feature'), [], name)
    }
  })
})
