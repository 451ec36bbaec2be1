/** Which pods and ServiceAccounts to watch: no more than the allow-list can match. */

import type { Scope } from '../kube/scope.ts'
import { isGlob } from '../lib/glob.ts'
import type { AllowedIdentity } from './policy.ts'

/**
 * The most listed ServiceAccounts of a namespace to watch one by one; with more, watch all of it.
 */
const EXACT_ACCOUNTS_MAX = 8

/** The allow-list, and whether it admits anybody. */
type AllowList = {
  readonly enabled: boolean
  readonly allowedIdentities: readonly AllowedIdentity[]
}

/** The narrowest watches that show every pod the allow-list can match; none if it admits nobody. */
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
