/** What the sidecar's ServiceAccount is allowed to do: exactly what it needs, according to kubectl. */

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { CHART } from './render.ts'
import { freshName, openNamespace, startDeployRig, type DeployRig } from './deploy-rig.ts'

const found = await startDeployRig()
const skip = 'why' in found && found.why

/** Only a pod is ever asked for by name: a ServiceAccount that is gone is seen to go. */
const SEEN = { pods: ['get', 'list', 'watch'], serviceaccounts: ['list', 'watch'] }

describe('rbac', { skip }, () => {
  const rig = found as DeployRig
  const namespace = freshName('openclaw-test')
  const workers = freshName('openclaw-workers')
  const at = `--namespace=${namespace}`
  const closes: (() => Promise<void>)[] = []

  before(async () => {
    for (const name of [namespace, workers]) closes.push(await openNamespace(rig, name))
    const globs = `--values=${join(CHART, 'ci/many-namespaces-values.yaml')}`
    const lists = identities([namespace, 'default-worker'], [workers, 'worker'])
    await rig.helm('install', 'openclaw', CHART, at)
    const none = '--set=workers.enabled=false'
    await rig.helm('install', 'listing', CHART, at, none, `--set-json=${lists}`)
    await rig.helm('install', 'matching', CHART, at, globs)
  })
  after(async () => {
    for (const close of closes) await close()
  })

  /** kubectl as a ServiceAccount, with its own token. */
  const as = async (account: string) => {
    const token = (await rig.kubectl('create', 'token', account, at)).trim()
    const { server, ca } = rig.config
    const cluster = { server: server.origin, 'certificate-authority-data': base64(ca) }
    const kubeconfig = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'c', cluster }],
      users: [{ name: 'u', user: { token } }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'c',
    }
    const file = join(rig.directory, `${account}.kubeconfig`)
    writeFileSync(file, JSON.stringify(kubeconfig), { mode: 0o600 })
    return (...args: readonly string[]) => rig.tryKubectl([`--kubeconfig=${file}`, ...args])
  }

  const listOf = async (account: string, where: string): Promise<readonly string[]> => {
    const kubectl = await as(account)
    const { code, stdout, stderr } = await kubectl(
      'auth',
      'can-i',
      '--list',
      `--namespace=${where}`,
    )
    assert.equal(code, 0, stderr)
    return stdout
      .split('\n')
      .slice(1)
      .map((line) => line.replaceAll(/ +/g, ' ').trim())
      .filter((line) => line !== '')
      .sort()
  }

  /** What an account is allowed to do beyond the rights of every authenticated user. */
  const rightsOf = async (account: string, where: string): Promise<readonly string[]> => {
    const everybody = await listOf('default', where)
    return (await listOf(account, where)).filter((line) => !everybody.includes(line))
  }

  const REVIEWS = 'tokenreviews.authentication.k8s.io [] [] [create]'
  const READS = Object.entries(SEEN).map(([kind, verbs]) => `${kind} [] [] [${verbs.join(' ')}]`)

  test('the sidecar may review tokens, and see the pods and ServiceAccounts of its namespace', async () => {
    assert.deepEqual(await rightsOf('openclaw-gateway', namespace), [...READS, REVIEWS].sort())
    assert.deepEqual(await rightsOf('openclaw-gateway', 'kube-system'), [REVIEWS])
    assert.deepEqual(await rightsOf('openclaw-gateway', workers), [REVIEWS])
  })

  test('with a list of namespaces it sees those, and no other', async () => {
    const account = 'listing-openclaw-gateway'
    for (const where of [namespace, workers]) {
      assert.deepEqual(await rightsOf(account, where), [...READS, REVIEWS].sort(), where)
    }
    assert.deepEqual(await rightsOf(account, 'kube-system'), [REVIEWS])
  })

  test('only a pattern for namespaces takes the whole cluster', async () => {
    const account = 'matching-openclaw-gateway'
    assert.deepEqual(await rightsOf(account, 'kube-system'), [...READS, REVIEWS].sort())
  })

  test('a worker has no right beyond those of every authenticated user', async () => {
    assert.deepEqual(await rightsOf('openclaw-worker', namespace), [])
  })

  test('each needed right is granted, and each right an intruder would want is not', async () => {
    const kubectl = await as('openclaw-gateway')
    const may = async (...question: readonly string[]) =>
      (await kubectl('auth', 'can-i', ...question)).stdout.trim()
    const needed = [
      ['create', 'tokenreviews.authentication.k8s.io'],
      ...Object.entries(SEEN).flatMap(([kind, verbs]) => verbs.map((verb) => [verb, kind, at])),
    ]
    for (const question of needed) assert.equal(await may(...question), 'yes', question.join(' '))
    const refused = [
      ...['create', 'update', 'patch', 'delete', 'deletecollection'].map((verb) => [
        verb,
        'pods',
        at,
      ]),
      ...['secrets', 'configmaps', 'endpoints', 'events'].map((resource) => ['get', resource, at]),
      ['list', 'secrets', at],
      ['get', 'serviceaccounts', at],
      ['create', 'serviceaccounts', '--subresource=token', at],
      ['create', 'pods', '--subresource=exec', at],
      ['get', 'pods', '--subresource=log', at],
      ['create', 'pods', '--subresource=portforward', at],
      ['patch', 'pods', '--subresource=status', at],
      ['impersonate', 'serviceaccounts', at],
      ['list', 'pods', '--all-namespaces'],
      ['list', 'pods', '--namespace=kube-system'],
      ['get', 'nodes'],
      ['list', 'namespaces'],
      ['create', 'subjectaccessreviews.authorization.k8s.io'],
      ['escalate', 'clusterroles.rbac.authorization.k8s.io'],
      ['bind', 'clusterroles.rbac.authorization.k8s.io'],
      ['*', '*'],
      ['get', '/metrics'],
      ['get', '/logs'],
    ]
    for (const question of refused) assert.equal(await may(...question), 'no', question.join(' '))
  })

  test('an uninstall removes every right', async () => {
    await rig.helm('uninstall', 'listing', at)
    const left = await rig.kubectl('get', 'roles,rolebindings', `--namespace=${workers}`, '-o=name')
    assert.equal(left, '')
  })
})

const identities = (...all: readonly (readonly [string, string])[]): string => {
  const list = all.map(([namespace, serviceAccount]) => ({ namespace, serviceAccount }))
  return `sidecar.config={"k8sTrust":{"allowedIdentities":${JSON.stringify(list)}}}`
}

const base64 = (text: string): string => Buffer.from(text).toString('base64')
