/** What is kept of a pod and of a ServiceAccount: a few words, never the whole object. */

import * as z from 'zod'
import { normalizeAddress } from '../lib/address.ts'

export type WatchedPod = {
  readonly uid: string
  readonly name: string
  readonly namespace: string
  readonly serviceAccount: string
  readonly nodeName: string | undefined
  /** Every address of `status.podIPs`, spelled as a socket's; `podIP` if there is no other. */
  readonly ips: readonly string[]
  readonly phase: string
  readonly isHostNetwork: boolean
  /** The pod's grace period in seconds; `undefined` while it is not being deleted. */
  readonly terminationSeconds: number | undefined
}

export type WatchedAccount = {
  readonly uid: string
  readonly name: string
  readonly namespace: string
}

const metadata = z.object({
  uid: z.string().min(1),
  name: z.string().min(1),
  namespace: z.string().min(1),
})

/** The fields of a core/v1 Pod that matter here. */
const POD = z.object({
  metadata: metadata.extend({
    deletionTimestamp: z.string().nullish(),
    deletionGracePeriodSeconds: z.number().nullish(),
  }),
  spec: z.object({
    serviceAccountName: z.string().nullish(),
    nodeName: z.string().nullish(),
    hostNetwork: z.boolean().nullish(),
  }),
  status: z
    .object({
      phase: z.string().nullish(),
      podIP: z.string().nullish(),
      podIPs: z.array(z.object({ ip: z.string().nullish() })).nullish(),
    })
    .nullish(),
})

const ACCOUNT = z.object({ metadata })

/** Throws for anything that is not a pod. */
export function readPod(object: unknown): WatchedPod {
  const { metadata: meta, spec, status } = POD.parse(object)
  const ips = readAddresses((status?.podIPs ?? []).map(({ ip }) => ip))
  const isTerminating = typeof meta.deletionTimestamp === 'string'
  return {
    uid: meta.uid,
    name: meta.name,
    namespace: intern(meta.namespace),
    serviceAccount: intern(spec.serviceAccountName ?? 'default'),
    nodeName: spec.nodeName ? intern(spec.nodeName) : undefined,
    ips: ips.length === 0 ? readAddresses([status?.podIP]) : ips,
    phase: intern(status?.phase ?? 'Pending'),
    isHostNetwork: spec.hostNetwork === true,
    terminationSeconds: isTerminating ? (meta.deletionGracePeriodSeconds ?? 0) : undefined,
  }
}

const readAddresses = (texts: readonly (string | null | undefined)[]): readonly string[] =>
  texts.flatMap((text) => normalizeAddress(text ?? undefined) ?? [])

/** Throws for anything that is not a ServiceAccount. */
export function readAccount(object: unknown): WatchedAccount {
  const { uid, name, namespace } = ACCOUNT.parse(object).metadata
  return { uid, name, namespace: intern(namespace) }
}

const ACCOUNTS = z.object({ items: z.array(ACCOUNT) })

/** Throws for anything that is not a list of ServiceAccounts. */
export function readAccounts(list: unknown): readonly WatchedAccount[] {
  return ACCOUNTS.parse(list).items.map(readAccount)
}

const INTERNED_MAX = 10_000
const interned = new Map<string, string>()

/** One shared copy of a word that thousands of pods have. */
function intern(word: string): string {
  const known = interned.get(word)
  if (known !== undefined) return known
  if (interned.size >= INTERNED_MAX) interned.clear()
  interned.set(word, word)
  return word
}
