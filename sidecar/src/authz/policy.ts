/** The allow-list: which ServiceAccounts may come in, and in which role. */

import { denied, granted, type Verdict } from '../denial.ts'
import { globMatcher } from '../lib/glob.ts'
import type { Identity } from '../identity.ts'

/** One entry of the allow-list; `namespace` and `serviceAccount` are exact names or globs. */
export type AllowedIdentity = {
  readonly namespace: string
  readonly serviceAccount: string
  readonly allowedRoles: readonly string[]
  readonly allowedCommands: readonly string[]
  /** Default false. */
  readonly allowSessionHosting?: boolean
}

/** The identity the list is asked about. */
type Subject = Pick<Identity, 'namespace' | 'serviceAccount'>

/** What an admitted worker may do. */
export type Grant = {
  readonly role: string
  readonly allowedCommands: readonly string[]
  readonly isHostingAllowed: boolean
}

export type Policy = {
  /** Whether anybody may be admitted. */
  readonly isEnabled: boolean
  readonly isListed: (namespace: string, serviceAccount: string) => boolean
  /** Decides the role: the requested one, or the only one there is. */
  readonly authorize: (subject: Subject, role: string | undefined) => Verdict<Grant>
}

/**
 * An empty list allows nobody, and neither does any list while trust is disabled. If several
 * entries match, a role is allowed if one of them allows it, with the commands of that entry, and
 * with session hosting if that entry allows it.
 */
export function createPolicy(entries: readonly AllowedIdentity[], isEnabled = true): Policy {
  const rules = entries.map((entry) => {
    const isNamespace = globMatcher(entry.namespace)
    const isServiceAccount = globMatcher(entry.serviceAccount)
    const matches = (namespace: string, serviceAccount: string) =>
      isNamespace(namespace) && isServiceAccount(serviceAccount)
    return { entry, matches }
  })

  return {
    isEnabled,
    isListed: (namespace, serviceAccount) =>
      rules.some((rule) => rule.matches(namespace, serviceAccount)),

    authorize({ namespace, serviceAccount }, asked) {
      if (!isEnabled) return denied('trust_disabled')
      const matching = rules
        .filter((rule) => rule.matches(namespace, serviceAccount))
        .map(({ entry }) => entry)
      if (matching.length === 0) return denied('identity_not_allowed')
      const role = asked ?? findOnlyRole(matching)
      if (role === undefined) return denied('role_missing')
      const entry = matching.find(({ allowedRoles }) => allowedRoles.includes(role))
      if (entry === undefined) return denied('role_not_allowed')
      const { allowedCommands, allowSessionHosting: isHostingAllowed = false } = entry
      return granted({ role, allowedCommands, isHostingAllowed })
    },
  }
}

/** The role that all of them allow and nothing else; `undefined` where there is a choice. */
function findOnlyRole(entries: readonly AllowedIdentity[]): string | undefined {
  const [role, ...others] = new Set(entries.flatMap((entry) => entry.allowedRoles))
  return others.length === 0 ? role : undefined
}
