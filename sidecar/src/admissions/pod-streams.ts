/** Sums the open streams of each pod, for people who look. */

import type { Identity } from '../identity.ts'
import { sumOf, type RelayTotals } from '../lib/relay-totals.ts'
import type { Admission } from './admission.ts'

export type PodStreams = RelayTotals &
  Pick<Identity, 'namespace' | 'serviceAccount' | 'podName' | 'nodeName'> & {
    readonly address: string
    /** Its own streams, and those of the sessions that it hosts, transfers included. */
    readonly own: number
    readonly hosted: number
    /** When the oldest of them was admitted, on the monotonic clock. */
    readonly admittedAt: number
  }

/** One row a pod; the pod that came last is first. */
export function sumByPod(admitted: Iterable<Admission>): readonly PodStreams[] {
  const byPod = Map.groupBy(admitted, ({ claims }) => claims.podUid)
  return [...byPod.values()]
    .flatMap((ofPod) => sumOne(ofPod))
    .toSorted((a, b) => b.admittedAt - a.admittedAt)
}

function sumOne(ofPod: readonly Admission[]): readonly PodStreams[] {
  const [first] = ofPod
  if (first === undefined) return []
  const { namespace, serviceAccount, podName, nodeName } = first.claims
  const own = ofPod.filter(({ kind }) => kind === 'own').length
  return [
    {
      namespace,
      serviceAccount,
      podName,
      nodeName,
      address: first.address,
      own,
      hosted: ofPod.length - own,
      admittedAt: Math.min(...ofPod.map(({ admittedAt = Infinity }) => admittedAt)),
      ...sumOf(ofPod.flatMap(({ counts }) => counts ?? [])),
    },
  ]
}
