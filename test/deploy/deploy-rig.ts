/** Where the suites deploy: kubectl and helm with a private home, and namespaces that are removed again. */

import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { createApi, type Api } from '../cluster/api.ts'
import { readKubeconfig, type Kubeconfig } from '../cluster/kubeconfig.ts'
import { waitForProcess } from '../kit/wait.ts'
import { keepTrackOf } from '../kit/leftovers.ts'
import type { Labels } from './objects.ts'
import { findHelm, findTool, mustRun, run, type Outcome } from './tools.ts'

export type DeployRig = {
  readonly api: Api
  readonly config: Kubeconfig
  /** For files of the run; gone with it. */
  readonly directory: string
  readonly kubectl: (...args: readonly string[]) => Promise<string>
  /** Resolves whatever the answer is; with something to read, if given. */
  readonly tryKubectl: (args: readonly string[], input?: string) => Promise<Outcome>
  readonly helm: (...args: readonly string[]) => Promise<string>
  readonly tryHelm: (...args: readonly string[]) => Promise<Outcome>
  /** What a user types, with both of them on the PATH. */
  readonly shell: (script: string, more?: Readonly<Record<string, string>>) => Promise<Outcome>
}

/** A namespace whose pods have to satisfy the strictest of the Pod Security Standards. */
const RESTRICTED: Labels = {
  'pod-security.kubernetes.io/enforce': 'restricted',
  'pod-security.kubernetes.io/enforce-version': 'latest',
  // Anything but a pod only gets a warning.
  'pod-security.kubernetes.io/warn': 'restricted',
}

const GONE_WITHIN_MS = 60_000
/** A suite before this one may have killed it, and started it again. */
const READY_WITHIN_MS = 60_000

let opened: Promise<DeployRig | { readonly why: string }> | undefined

/** One rig for the whole run, or the reason why there is none. */
export const startDeployRig = (): Promise<DeployRig | { readonly why: string }> =>
  (opened ??= open())

const open = async (): Promise<DeployRig | { readonly why: string }> => {
  const [kubectl, helm] = [findTool('kubectl'), await findHelm()]
  if ('why' in kubectl) return kubectl
  if ('why' in helm) return helm
  const kubeconfig = resolve(process.env['KUBECONFIG'] ?? '')
  const config = readKubeconfig(kubeconfig)
  const api = createApi(config)
  await waitForProcess('a ready API server', READY_WITHIN_MS, async () => {
    const asked = api.call({ method: 'GET', path: '/readyz' })
    return asked.then(({ status }) => status === 200).catch(() => false)
  })
  const directory = mkdtempSync(join(tmpdir(), 'openclaw-deploy-'))
  // Nothing of the user who runs this is read or written.
  const env = {
    KUBECONFIG: kubeconfig,
    HOME: directory,
    HELM_CACHE_HOME: join(directory, 'helm-cache'),
    HELM_CONFIG_HOME: join(directory, 'helm-config'),
    HELM_DATA_HOME: join(directory, 'helm-data'),
    HELM_NAMESPACE: '',
  }
  keepTrackOf(async () => {
    api.close()
    rmSync(directory, { recursive: true })
  })
  return {
    api,
    config,
    directory,
    kubectl: (...args) => mustRun({ path: kubectl.path, args, env }),
    tryKubectl: (args, input = '') => run({ path: kubectl.path, args, env, input }),
    helm: (...args) => mustRun({ path: helm.path, args, env }),
    tryHelm: (...args) => run({ path: helm.path, args, env }),
    shell: (script, more = {}) =>
      run({
        path: 'bash',
        args: ['-euc', script],
        env: { ...env, PATH: pathWith(kubectl, helm), ...more },
      }),
  }
}

const pathWith = (...tools: readonly { readonly path: string }[]): string =>
  [...tools.map(({ path }) => dirname(path)), process.env['PATH']].join(delimiter)

/** A name nobody has. */
export const freshName = (prefix: string): string => `${prefix}-${randomBytes(4).toString('hex')}`

/** Makes a namespace; resolves with what takes it away and waits until it is gone. */
export const openNamespace = async (
  { api }: DeployRig,
  name: string,
  labels: Labels = RESTRICTED,
): Promise<() => Promise<void>> => {
  await api.must({
    method: 'POST',
    path: '/api/v1/namespaces',
    body: { metadata: { name, labels } },
  })
  return keepTrackOf(() => removeNamespace(api, name))
}

export const removeNamespace = async (api: Api, name: string): Promise<void> => {
  const path = `/api/v1/namespaces/${name}`
  for (const collection of CLUSTER_WIDE) await removeOwn(api, collection, `${name}:`)
  await api.call({ method: 'DELETE', path })
  // A pod without a kubelet would otherwise be terminating for ever, and its namespace with it.
  const force = { gracePeriodSeconds: 0 }
  await waitForProcess(`the end of namespace ${name}`, GONE_WITHIN_MS, async () => {
    await api.call({ method: 'DELETE', path: `${path}/pods`, body: force })
    return (await api.call({ method: 'GET', path })).status === 404
  })
}

/** Cluster-wide objects of a release carry the name of its namespace. */
const CLUSTER_WIDE = ['clusterrolebindings', 'clusterroles'].map(
  (kind) => `/apis/rbac.authorization.k8s.io/v1/${kind}`,
)

const removeOwn = async (api: Api, collection: string, prefix: string): Promise<void> => {
  const { items } = (await api.must({ method: 'GET', path: collection })) as unknown as Listed
  for (const { metadata } of items.filter((each) => each.metadata.name.startsWith(prefix))) {
    await api.call({ method: 'DELETE', path: `${collection}/${metadata.name}` })
  }
}

type Listed = { readonly items: readonly { readonly metadata: { readonly name: string } }[] }
