/** Puts the pods' side together: the watch, the binding, and what ends with a pod. */

import { findLifetimeEnd } from './lifetime.ts'
import { PodBinding } from '../authz/pod-binding.ts'
import type { AllowedIdentity } from '../authz/policy.ts'
import { isFault, type Code } from '../denial.ts'
import { createLookups } from '../kube/lookups.ts'
import { PodWatch } from '../kube/pod-watch.ts'
import type { WatchedPod } from '../kube/pod.ts'
import type { Scope } from '../kube/scope.ts'
import type { Entry, Streams } from './registry.ts'
import type { Cluster } from '../compose/cluster.ts'
import type { Settings } from '../compose/live-config.ts'
import type { Surroundings } from '../compose/runtime.ts'

export type PodParts = {
  readonly settings: Settings
  readonly around: Surroundings
  readonly cluster: Cluster
  readonly streams: Streams
  /** Drops every verdict on tokens of this pod. */
  readonly forgetPod: (podUid: string) => void
  /** The pod is gone for good: what was kept for it elsewhere may go too. */
  readonly onPodGone: (pod: WatchedPod) => void
}

/** How often open streams are asked whether their time is over, in milliseconds. */
const SWEEP_MS = 1000

export type Pods = ReturnType<typeof composePods>

export function composePods(parts: PodParts) {
  const { settings, around, cluster, streams } = parts
  const { clock } = around
  const watch: PodWatch = composeWatch(parts, (pod) =>
    streams.reviewPod(pod.uid, (entry) => findBindingEnd(entry, binding)),
  )
  const binding = new PodBinding({
    pods: watch,
    rules: () => settings.config.k8sTrust,
    clock,
    ...createLookups(cluster.pods, settings.config.review.timeout),
  })
  let cancelSweep = () => {}
  const sweep = () => {
    streams.review((entry) => findEnd(entry, watch, parts))
    cancelSweep = clock.after(SWEEP_MS, sweep)
  }
  const watchScopes = () => {
    const { enabled, allowedIdentities } = settings.config.k8sTrust
    watch.watch(enabled ? scopesOf(allowedIdentities) : [])
  }
  return {
    watch,
    binding,
    start() {
      watchScopes()
      sweep()
    },
    /** The policy changed: every stream has to pass it again. */
    onPolicyChanged() {
      watchScopes()
      streams.review((entry) => findPolicyEnd(entry, settings) ?? findBindingEnd(entry, binding))
    },
    stop() {
      cancelSweep()
      watch.stop()
    },
  }
}

/** What a change of the watch ends. */
function composeWatch(
  { around, cluster, streams, forgetPod, onPodGone }: PodParts,
  onPodChanged: (pod: WatchedPod) => void,
): PodWatch {
  const { clock, random, log } = around
  return new PodWatch({
    lists: cluster.lists,
    watches: cluster.watches,
    clock,
    random,
    onPodGone(pod) {
      forgetPod(pod.uid)
      streams.revokePod(pod.uid, 'pod_deleted')
      onPodGone(pod)
    },
    onPodChanged,
    onPodEnding(pod) {
      forgetPod(pod.uid)
      if (pod.terminationSeconds === undefined) streams.revokePod(pod.uid, 'pod_not_running')
      else streams.revokePending(pod.uid, 'pod_terminating')
    },
    onAccountGone: ({ uid }) =>
      streams.review(({ claims }) =>
        claims.serviceAccountUid === uid ? 'service_account_deleted' : undefined,
      ),
    onFault: (err) => log.warn({ err }, 'a watch was interrupted'),
  })
}

/** Why an open stream's time is over. */
function findEnd(entry: Entry, watch: PodWatch, { settings, around }: PodParts): Code | undefined {
  const { claims, admittedAt } = entry
  if (admittedAt === undefined) return undefined
  const { clock } = around
  const { k8sTrust } = settings.config
  const agoMs = watch.terminatingForMs(claims.podUid)
  const graceMs = (watch.find(claims.podUid)?.terminationSeconds ?? 0) * 1000
  return findLifetimeEnd(
    {
      claims,
      admittedAgoMs: clock.monotonic() - admittedAt,
      termination: agoMs === undefined ? undefined : { agoMs, graceMs },
      watchStaleMs: watch.staleForMs,
      nowMs: clock.now(),
    },
    {
      onTokenExpiry: k8sTrust.onTokenExpiry,
      maxSessionAgeMs: k8sTrust.maxSessionAge,
      terminationGraceMs: k8sTrust.terminationGrace,
      maxWatchStalenessMs: k8sTrust.maxWatchStaleness,
    },
  )
}

/** An admission under way has no role yet: its last question asks for that. */
function findPolicyEnd({ claims, role }: Entry, { config, policy }: Settings): Code | undefined {
  if (!config.k8sTrust.enabled) return 'trust_disabled'
  if (!policy.isListed(claims.namespace, claims.serviceAccount)) return 'identity_not_allowed'
  if (role === undefined) return undefined
  const grant = policy.authorize(claims, role)
  return grant.ok ? undefined : grant.code
}

/** The rules of the binding may be stricter now; what only cannot be said ends no stream. */
function findBindingEnd({ claims, address, state }: Entry, binding: PodBinding): Code | undefined {
  const bound = state === 'admitted' ? binding.check({ claims, address }) : undefined
  // A terminating pod's streams have a time of their own.
  if (bound?.ok !== false || isFault(bound.code) || bound.code === 'pod_terminating') {
    return undefined
  }
  return bound.code
}

const GLOB = /[*?]/
/** A namespace with more ServiceAccounts than this is watched as a whole. */
const EXACT_ACCOUNTS_MAX = 8

/** The narrowest watches that show every pod the allow-list can mean. */
export function scopesOf(entries: readonly AllowedIdentity[]): readonly Scope[] {
  if (entries.some(({ namespace }) => GLOB.test(namespace))) {
    return [{ namespace: undefined, serviceAccount: undefined }]
  }
  const byNamespace = Map.groupBy(entries, ({ namespace }) => namespace)
  return [...byNamespace].flatMap(([namespace, listed]): readonly Scope[] => {
    const accounts = new Set(listed.map(({ serviceAccount }) => serviceAccount))
    const isNarrow =
      accounts.size <= EXACT_ACCOUNTS_MAX && ![...accounts].some((account) => GLOB.test(account))
    if (!isNarrow) return [{ namespace, serviceAccount: undefined }]
    return [...accounts].map((serviceAccount) => ({ namespace, serviceAccount }))
  })
}
