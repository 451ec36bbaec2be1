/** A private namespace on the real API server with what the manifests ship; removed without a trace at the end. */

import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseAllDocuments } from 'yaml'
import { keepTrackOf } from '../kit/leftovers.ts'
import { createApi, type Api, type Json } from './api.ts'
import { readKubeconfig } from './kubeconfig.ts'

export type Pod = {
  readonly name: string
  readonly uid: string
  readonly ip: string
  readonly serviceAccount: string
}

type PodRequest = {
  /** A fresh name unless given. */
  readonly name?: string
  readonly serviceAccount?: string
  readonly ip?: string
  readonly terminationGracePeriodSeconds?: number
}

type TokenRequest = {
  readonly pod?: Pod
  readonly serviceAccount?: string
  /** The gateway's unless given; an empty list means the API server's own. */
  readonly audiences?: readonly string[]
  readonly expirationSeconds?: number
}

export type ClusterRig = Awaited<ReturnType<typeof startClusterRig>>

export const AUDIENCE = 'openclaw-gateway'
export const WORKER = 'openclaw-worker'
export const GATEWAY = 'openclaw-gateway'
/** The namespace the manifests are written for. */
const SHIPPED_NAMESPACE = 'openclaw'
const RBAC = fileURLToPath(new URL('../../manifests/rbac.yaml', import.meta.url))
const REVIEWS = '/apis/authentication.k8s.io/v1/tokenreviews'

/** `KUBECONFIG`, which `main.ts` has seen to be set. */
const kubeconfigPath = (): string => process.env['KUBECONFIG'] ?? ''

export const startClusterRig = async () => {
  const config = readKubeconfig(kubeconfigPath())
  const api = createApi(config)
  const suffix = randomBytes(4).toString('hex')
  const namespace = `openclaw-test-${suffix}`
  const node = namespace
  const made: string[] = []
  const directory = mkdtempSync(join(tmpdir(), 'auth-sidecar-cluster-'))
  const close = keepTrackOf(async () => {
    rmSync(directory, { recursive: true })
    // From then on nothing new can be created in the namespace, not even by leftovers of an interrupt.
    for (const path of made.toReversed()) await api.call({ method: 'DELETE', path })
    // A pod without a kubelet would otherwise be terminating for ever, and its namespace with it.
    await api.call({
      method: 'DELETE',
      path: `/api/v1/namespaces/${namespace}/pods`,
      body: { gracePeriodSeconds: 0 },
    })
    api.close()
  })
  const make = async (
    collection: string,
    object: Json & { readonly metadata: { name: string } },
  ) => {
    const body = await api.must({ method: 'POST', path: collection, body: object })
    // What lies in the namespace goes with it.
    if (!collection.includes('/namespaces/')) made.push(`${collection}/${object.metadata.name}`)
    return body
  }

  try {
    await make('/api/v1/namespaces', { metadata: { name: namespace } })
    // Without its Node object a controller of a whole cluster would collect the pods as orphans.
    await make('/api/v1/nodes', { metadata: { name: node }, spec: { unschedulable: true } })
    for (const { collection, object } of shipped(namespace, suffix)) await make(collection, object)
  } catch (error) {
    await close()
    throw error
  }
  return { api, config, namespace, directory, close, ...workloads(api, namespace, node) }
}

/** The manifests' objects, moved to our namespace; cluster-wide names are made ours too. */
const shipped = (namespace: string, suffix: string) =>
  parseAllDocuments(readFileSync(RBAC, 'utf8')).map((document) => {
    const text = JSON.stringify(document.toJS()).replaceAll(
      `"namespace":"${SHIPPED_NAMESPACE}"`,
      `"namespace":"${namespace}"`,
    )
    const object = JSON.parse(text) as Manifest
    const isClusterWide = object.metadata.namespace === undefined
    if (isClusterWide) {
      object.metadata.name += `-${suffix}`
      if (object.roleRef !== undefined) object.roleRef.name += `-${suffix}`
    }
    const group = object.apiVersion === 'v1' ? '/api/v1' : `/apis/${object.apiVersion}`
    const within = isClusterWide ? '' : `/namespaces/${namespace}`
    return { collection: `${group}${within}/${object.kind.toLowerCase()}s`, object }
  })

type Manifest = {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { name: string; namespace?: string }
  readonly roleRef?: { name: string }
}

const workloads = (api: Api, namespace: string, node: string) => {
  const within = `/api/v1/namespaces/${namespace}`
  let pods = 0

  /** Every pod has a different address in 127.0.0.0/8, as pods in a cluster have. */
  const createPod = async (request: PodRequest = {}): Promise<Pod> => {
    pods += 1
    const { name = `worker-${pods}`, serviceAccount = WORKER } = request
    const ip = request.ip ?? `127.1.${pods >> 8}.${pods & 255}`
    const created = await api.must({
      method: 'POST',
      path: `${within}/pods`,
      body: {
        metadata: { name },
        spec: {
          nodeName: node,
          serviceAccountName: serviceAccount,
          automountServiceAccountToken: false,
          terminationGracePeriodSeconds: request.terminationGracePeriodSeconds ?? 30,
          containers: [{ name: 'worker', image: 'worker:test' }],
        },
      },
    })
    await api.must({
      method: 'PATCH',
      path: `${within}/pods/${name}/status`,
      body: { status: { phase: 'Running', podIP: ip, podIPs: [{ ip }] } },
    })
    const { uid } = created['metadata'] as { uid: string }
    return { name, uid, ip, serviceAccount }
  }

  /** At once, as `kubectl delete --force`, unless a grace is given. Resolves with the answer. */
  const deletePod = ({ name, uid }: Pod, gracePeriodSeconds = 0) =>
    api.must({
      method: 'DELETE',
      path: `${within}/pods/${name}`,
      body: { gracePeriodSeconds, preconditions: { uid } },
    })

  const createServiceAccount = (name: string) =>
    api.must({ method: 'POST', path: `${within}/serviceaccounts`, body: { metadata: { name } } })

  const deleteServiceAccount = (name: string) =>
    api.must({ method: 'DELETE', path: `${within}/serviceaccounts/${name}` })

  const mint = async (request: TokenRequest = {}): Promise<string> => {
    const { pod, audiences = [AUDIENCE], expirationSeconds = 3600 } = request
    const account = pod?.serviceAccount ?? request.serviceAccount ?? WORKER
    const answer = await api.must({
      method: 'POST',
      path: `${within}/serviceaccounts/${account}/token`,
      body: {
        spec: {
          audiences,
          expirationSeconds,
          ...(pod === undefined
            ? {}
            : {
                boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod.name, uid: pod.uid },
              }),
        },
      },
    })
    return (answer['status'] as { token: string }).token
  }

  /** What the API server itself says of a token. */
  const isAuthenticated = async (token: string): Promise<boolean> => {
    const body = { spec: { token, audiences: [AUDIENCE] } }
    const { status, body: review } = await api.call({ method: 'POST', path: REVIEWS, body })
    if (status === 400) return false
    if (status !== 201) throw new Error(`TokenReview: ${status} ${JSON.stringify(review)}`)
    return (review['status'] as { authenticated?: boolean } | undefined)?.authenticated === true
  }

  return {
    createPod,
    deletePod,
    createServiceAccount,
    deleteServiceAccount,
    mint,
    isAuthenticated,
  }
}
