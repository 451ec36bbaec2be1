/** What the shipped RBAC allows the sidecar, and that it allows nothing else. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { examineCluster } from '@openclaw-k8s/auth-sidecar/doctor/cluster.ts'
import type { Json } from './api.ts'
import { GATEWAY, startClusterRig, type ClusterRig } from './cluster-rig.ts'
import { settle } from './rig.ts'

type Rule = Readonly<Record<'apiGroups' | 'resources' | 'verbs', readonly string[]>>

const REVIEWS = '/apis/authorization.k8s.io/v1'

const BARE = 'openclaw-bare'

describe('rbac', () => {
  let cluster: ClusterRig
  let token: string
  /** Of an account that no role is bound to. */
  let bare: string

  before(async () => {
    cluster = await startClusterRig()
    token = await cluster.mint({ serviceAccount: GATEWAY, audiences: [] })
    await cluster.createServiceAccount(BARE)
    bare = await cluster.mint({ serviceAccount: BARE, audiences: [] })
  })
  after(() => cluster?.close())

  const listRules = async (caller: string, namespace: string): Promise<readonly string[]> => {
    const path = `${REVIEWS}/selfsubjectrulesreviews`
    const body = { spec: { namespace } }
    const review = await cluster.api.must({ method: 'POST', path, body, token: caller })
    const { resourceRules } = review['status'] as { resourceRules: readonly Rule[] }
    return resourceRules.flatMap(({ apiGroups, resources, verbs }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) => verbs.map((verb) => `${verb} ${group}/${resource}`)),
      ),
    )
  }

  /**
   * What the sidecar may beyond every ServiceAccount. Those may ask about themselves
   * (`system:basic-user`), and read ClusterTrustBundles where these are on by default, as in 1.37.
   */
  const rulesIn = async (namespace: string): Promise<readonly string[]> => {
    const everybodys = new Set(await listRules(bare, namespace))
    const own = await listRules(token, namespace)
    return own.filter((rule) => !everybodys.has(rule)).toSorted()
  }

  const may = async (resourceAttributes: Json): Promise<boolean> => {
    const path = `${REVIEWS}/selfsubjectaccessreviews`
    const body = { spec: { resourceAttributes } }
    const review = await cluster.api.must({ method: 'POST', path, body, token })
    return (review['status'] as { allowed: boolean }).allowed
  }

  test('the sidecar may review tokens and see pods and ServiceAccounts, and nothing else', async () => {
    assert.deepEqual(await rulesIn(cluster.namespace), [
      'create authentication.k8s.io/tokenreviews',
      'get /pods',
      'list /pods',
      'list /serviceaccounts',
      'watch /pods',
      'watch /serviceaccounts',
    ])
    assert.deepEqual(await rulesIn('default'), ['create authentication.k8s.io/tokenreviews'])
  })

  test('the doctor finds every granted right, and reports those that are missing', async () => {
    const { config, runtime } = await settle(cluster)
    const examine = (allowed = config.k8sTrust.allowedIdentities) =>
      examineCluster({
        config: { ...config, k8sTrust: { ...config.k8sTrust, allowedIdentities: allowed } },
        file: undefined,
        warnings: [],
        explicitPaths: new Set(),
        env: {},
        readFile: runtime.readFile,
        clock: runtime.clock,
        interfaces: {},
      })
    const found = await examine()
    assert.deepEqual(
      found.map(({ level, name }) => `${level} ${name}`),
      ['api-server', 'clock', 'own-token', 'signing-keys', 'rights', 'reviews', 'allow-list'].map(
        (name) => `ok ${name}`,
      ),
      JSON.stringify(found),
    )
    const [identity] = config.k8sTrust.allowedIdentities
    assert.ok(identity)
    const elsewhere = await examine([{ ...identity, namespace: 'default' }])
    assert.match(
      elsewhere.find(({ level }) => level === 'fail')?.what ?? '',
      /^cannot get, list, watch pods, or list, watch serviceaccounts in namespace default$/,
    )
  })

  test('the first requests of an intruder in the sidecar are refused', async () => {
    const { namespace } = cluster
    const core = (verb: string, resource: string, more: Json = {}) => ({
      verb,
      resource,
      namespace,
      ...more,
    })
    const refused = [
      ...['create', 'update', 'patch', 'delete', 'deletecollection'].flatMap((verb) => [
        core(verb, 'pods'),
        core(verb, 'serviceaccounts'),
      ]),
      ...['get', 'list', 'watch', 'create'].flatMap((verb) => [
        core(verb, 'secrets'),
        core(verb, 'configmaps'),
      ]),
      core('create', 'serviceaccounts', { subresource: 'token' }),
      core('create', 'pods', { subresource: 'exec' }),
      core('get', 'pods', { subresource: 'log' }),
      core('patch', 'pods', { subresource: 'status' }),
      core('impersonate', 'serviceaccounts'),
      core('list', 'pods', { namespace: 'default' }),
      core('get', 'pods', { namespace: 'kube-system' }),
      { verb: 'list', resource: 'pods' },
      { verb: 'watch', resource: 'serviceaccounts' },
      { verb: 'get', resource: 'nodes' },
      { verb: 'list', resource: 'namespaces' },
      { verb: 'create', group: 'authorization.k8s.io', resource: 'subjectaccessreviews' },
      { verb: '*', group: '*', resource: '*' },
    ]
    for (const attributes of refused) {
      assert.equal(await may(attributes), false, JSON.stringify(attributes))
    }
    assert.equal(await may(core('watch', 'pods')), true, 'the review itself works')
  })
})
