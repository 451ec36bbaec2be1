/** A scope of the watch: which objects it covers, and how to ask the API server for them. */

import type { Account } from '../identity.ts'
import type { Collection } from './list-page.ts'

/** A ServiceAccount's pods in a namespace; `undefined` stands for all. */
export type Scope = {
  readonly namespace: string | undefined
  readonly serviceAccount: string | undefined
}

const buildKey = (namespace = '*', serviceAccount = '*'): string => `${namespace}/${serviceAccount}`

export const keyOf = ({ namespace, serviceAccount }: Scope): string =>
  buildKey(namespace, serviceAccount)

/** The keys of all scopes that can cover a ServiceAccount's pods. */
export const keysCovering = ({ namespace, serviceAccount }: Account): readonly string[] => [
  buildKey(),
  buildKey(namespace),
  buildKey(namespace, serviceAccount),
]

/** How wide a scope is. */
export type ScopeKind = 'cluster' | 'namespace' | 'serviceaccount'

export const kindOf = ({ namespace, serviceAccount }: Scope): ScopeKind => {
  if (namespace === undefined) return 'cluster'
  return serviceAccount === undefined ? 'namespace' : 'serviceaccount'
}

/** A scope in words, for the log and for people. */
export const describeScope = ({ namespace, serviceAccount }: Scope): string => {
  if (namespace === undefined) return 'the cluster'
  const whole = `namespace ${namespace}`
  return serviceAccount === undefined ? whole : `${whole}, ServiceAccount ${serviceAccount}`
}

export type Covered = {
  readonly namespace: string
  readonly name: string
  readonly serviceAccount?: string
}

export const coveredBy =
  (scope: Scope) =>
  (item: Covered): boolean =>
    (scope.namespace === undefined || scope.namespace === item.namespace) &&
    (scope.serviceAccount === undefined ||
      scope.serviceAccount === (item.serviceAccount ?? item.name))

export function collectionOf(resource: string, field: string, scope: Scope): Collection {
  const { namespace, serviceAccount } = scope
  return {
    path:
      namespace === undefined
        ? `/api/v1/${resource}`
        : `/api/v1/namespaces/${namespace}/${resource}`,
    fieldSelector: serviceAccount === undefined ? undefined : `${field}=${serviceAccount}`,
  }
}
