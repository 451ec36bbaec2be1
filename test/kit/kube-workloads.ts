/** The life of pods and ServiceAccounts, as kubelet, controllers and kubectl would write it. */

import { randomUUID } from 'node:crypto'
import type { KubeStore } from './kube-store.ts'
import type { ObjectMeta, Pod, ServiceAccount } from './kube-store.ts'

export type PodRequest = {
  readonly namespace: string
  readonly name: string
  readonly serviceAccount: string
  /** `status.podIPs`, the first one is also `podIP`; none while the pod is Pending. */
  readonly ips?: readonly string[]
  readonly nodeName?: string
  readonly hostNetwork?: boolean
  readonly phase?: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown'
  readonly labels?: Readonly<Record<string, string>>
  readonly terminationGracePeriodSeconds?: number
}

/** RFC 7386: objects merge, null removes, all else replaces. */
export type MergePatch = { readonly [key: string]: unknown }

export const createWorkloads = (store: KubeStore, nowMs: () => number) => {
  const metadata = (namespace: string, name: string): ObjectMeta => ({
    name,
    namespace,
    uid: randomUUID(),
    resourceVersion: '',
    creationTimestamp: timestamp(nowMs()),
  })

  const existingPod = (namespace: string, name: string): Pod => {
    const pod = store.pod(namespace, name)
    if (pod === undefined) throw new Error(`there is no pod ${namespace}/${name}`)
    return pod
  }

  const createServiceAccount = (namespace: string, name: string): ServiceAccount => {
    if (store.serviceAccount(namespace, name) !== undefined) {
      throw new Error(`there is a ServiceAccount ${namespace}/${name} already`)
    }
    return store.put('serviceaccounts', { metadata: metadata(namespace, name) })
  }

  const deleteServiceAccount = (namespace: string, name: string): void => {
    const account = store.serviceAccount(namespace, name)
    if (account === undefined) throw new Error(`there is no ServiceAccount ${namespace}/${name}`)
    store.remove('serviceaccounts', account)
  }

  /** Creates the pod, and its ServiceAccount where that is missing. */
  const createPod = (request: PodRequest): Pod => {
    const { namespace, name, serviceAccount } = request
    if (store.pod(namespace, name) !== undefined) {
      throw new Error(`there is a pod ${namespace}/${name} already`)
    }
    if (store.serviceAccount(namespace, serviceAccount) === undefined) {
      createServiceAccount(namespace, serviceAccount)
    }
    const meta = { ...metadata(namespace, name), generation: 1 }
    return store.put('pods', {
      metadata: request.labels === undefined ? meta : { ...meta, labels: request.labels },
      spec: podSpec(request),
      status: podStatus(request, timestamp(nowMs())),
    })
  }

  const putTerminating = (pod: Pod, graceSeconds: number): Pod =>
    store.put('pods', {
      ...pod,
      metadata: {
        ...pod.metadata,
        generation: (pod.metadata.generation ?? 1) + 1,
        deletionTimestamp: timestamp(nowMs() + graceSeconds * 1000),
        deletionGracePeriodSeconds: graceSeconds,
      },
    })

  /** The kubelet's last word on a terminating pod: grace 0, then DELETED. */
  const finishPod = (namespace: string, name: string): void => {
    const pod = putTerminating(existingPod(namespace, name), 0)
    store.remove('pods', pod)
  }

  /** With a grace the pod stays, terminating, until `finishPod`; without one it is gone at once. */
  const deletePod = (
    namespace: string,
    name: string,
    { gracePeriodSeconds = 0 }: { readonly gracePeriodSeconds?: number } = {},
  ): void => {
    const pod = existingPod(namespace, name)
    if (gracePeriodSeconds === 0) finishPod(namespace, name)
    else putTerminating(pod, gracePeriodSeconds)
  }

  /** Deletes the pod at once and creates its namesake, as a StatefulSet does: only the uid differs. */
  const recreatePod = (namespace: string, name: string, changes: Partial<PodRequest> = {}): Pod => {
    const old = existingPod(namespace, name)
    finishPod(namespace, name)
    return createPod({ ...requestOf(old), ...changes, namespace, name })
  }

  const patchPod = (namespace: string, name: string, patch: MergePatch): Pod => {
    const pod = existingPod(namespace, name)
    return store.put('pods', mergePatch(pod, patch) as Pod)
  }

  return {
    createServiceAccount,
    deleteServiceAccount,
    createPod,
    deletePod,
    finishPod,
    recreatePod,
    patchPod,
    getServiceAccount: (namespace: string, name: string): ServiceAccount | undefined =>
      store.serviceAccount(namespace, name),
    getPod: (namespace: string, name: string): Pod | undefined => store.pod(namespace, name),
  }
}

const timestamp = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`

const podSpec = (request: PodRequest): Pod['spec'] => ({
  containers: [{ name: 'worker', image: 'worker:test', resources: {} }],
  restartPolicy: 'Always',
  terminationGracePeriodSeconds: request.terminationGracePeriodSeconds ?? 30,
  serviceAccountName: request.serviceAccount,
  serviceAccount: request.serviceAccount,
  ...(request.nodeName === undefined ? {} : { nodeName: request.nodeName }),
  ...(request.hostNetwork === true ? { hostNetwork: true } : {}),
})

const podStatus = (request: PodRequest, startTime: string): Pod['status'] => {
  const [podIP] = request.ips ?? []
  return {
    phase: request.phase ?? 'Running',
    ...(podIP === undefined ? {} : { podIP, podIPs: request.ips?.map((ip) => ({ ip })) ?? [] }),
    startTime,
    qosClass: 'BestEffort',
  }
}

const requestOf = (pod: Pod): PodRequest => ({
  namespace: pod.metadata.namespace,
  name: pod.metadata.name,
  serviceAccount: pod.spec.serviceAccountName,
  ips: pod.status.podIPs?.map(({ ip }) => ip) ?? [],
  terminationGracePeriodSeconds: pod.spec.terminationGracePeriodSeconds,
  ...(pod.metadata.labels === undefined ? {} : { labels: pod.metadata.labels }),
  ...(pod.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
  ...(pod.spec.hostNetwork === true ? { hostNetwork: true } : {}),
})

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const mergePatch = (target: unknown, patch: unknown): unknown => {
  if (!isRecord(patch)) return patch
  const merged: Record<string, unknown> = isRecord(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key]
    else merged[key] = mergePatch(merged[key], value)
  }
  return merged
}
