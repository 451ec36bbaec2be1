/** Which pods and ServiceAccounts have to be watched: no more than the allow-list can mean. */

import type { Scope } from '../kube/scope.ts'
import { isGlob } from '../lib/glob.ts'
import type { AllowedIdentity } from './policy.ts'

/** A namespace with more ServiceAccounts than this is watched as a whole. */
const EXACT_ACCOUNTS_MAX = 8

/** What the list is, and whether anybody is let in by it. */
type AllowList = {
  readonly enabled: boolean
  readonly allowedIdentities: readonly AllowedIdentity[]
}

/** The narrowest watches that show every pod the allow-list can mean; none where it lets nobody in. */
export function scopesOf({ enabled, allowedIdentities }: AllowList): readonly Scope[] {
  if (!enabled) return []
  if (allowedIdentities.some(({ namespace }) => isGlob(namespace))) {
    return [{ namespace: undefined, serviceAccount: undefined }]
  }
  const byNamespace = Map.groupBy(allowedIdentities, ({ namespace }) => namespace)
  return [...byNamespace].flatMap(([namespace, listed]): readonly Scope[] => {
    const accounts = new Set(listed.map(({ serviceAccount }) => serviceAccount))
    const isNarrow = accounts.size <= EXACT_ACCOUNTS_MAX && ![...accounts].some(isGlob)
    if (!isNarrow) return [{ namespace, serviceAccount: undefined }]
    return [...accounts].map((serviceAccount) => ({ namespace, serviceAccount }))
  })
}
