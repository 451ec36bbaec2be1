/** Whether the ServiceAccounts of the allow-list exist: a mistyped name keeps its workers out. */

import { accountNameOf } from '../identity.ts'
import { scopesOf } from '../authz/watch-scopes.ts'
import type { Config } from '../config/schema.ts'
import { isListPage, pathOf } from '../kube/list-page.ts'
import { readAccount, type WatchedAccount } from '../kube/pod.ts'
import { collectionOf, type Scope } from '../kube/scope.ts'
import type { Clock } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import { globMatcher } from '../lib/glob.ts'
import { fail, listed, ok, warn, type ClusterCheck, type Finding } from './finding.ts'

const NAME = 'allow-list'
const PAGE_ITEMS = 500
const PAGES_MAX = 10

type AllowListCheck = ClusterCheck & { readonly clock: Clock }
type Entry = Config['k8sTrust']['allowedIdentities'][number]

/** Finds nothing where accounts cannot be listed: the check of the rights says so. */
export async function examineAllowList(check: AllowListCheck): Promise<readonly Finding[]> {
  const { allowedIdentities } = check.config.k8sTrust
  const scopes = scopesOf(check.config.k8sTrust)
  let lists: readonly (readonly WatchedAccount[] | undefined)[]
  try {
    lists = await withDeadline(check.clock, check.deadlineMs, () =>
      Promise.all(scopes.map((scope) => listAccounts(check, scope))),
    )
  } catch {
    return []
  }
  // Of more accounts than were read nobody can say that one is missing.
  if (scopes.length === 0 || lists.includes(undefined)) return []
  const accounts = lists.flatMap((list) => list ?? [])
  const unmatched = allowedIdentities.filter((entry) => !accounts.some(matcherOf(entry)))
  if (unmatched.length === 0) {
    const count = allowedIdentities.length
    return [
      ok(
        NAME,
        count === 1
          ? 'its ServiceAccount exists'
          : `each of ${count} entries matches a ServiceAccount`,
      ),
    ]
  }
  const what = `no ServiceAccount matches ${describe(unmatched)}`
  const remedy =
    'Correct k8sTrust.allowedIdentities, or create the namespace and the ServiceAccount.'
  if (unmatched.length < allowedIdentities.length) return [warn(NAME, what, remedy)]
  return [fail(NAME, `${what}: no worker can be admitted`, remedy)]
}

const matcherOf = ({ namespace, serviceAccount }: Entry) => {
  const [isNamespace, isAccount] = [globMatcher(namespace), globMatcher(serviceAccount)]
  return ({ namespace: ofAccount, name }: WatchedAccount): boolean =>
    isNamespace(ofAccount) && isAccount(name)
}

const describe = (entries: readonly Entry[]): string => listed(entries.map(accountNameOf))

/** `undefined` if there are too many to read. */
async function listAccounts(
  { client, deadlineMs }: ClusterCheck,
  scope: Scope,
): Promise<readonly WatchedAccount[] | undefined> {
  const accounts: WatchedAccount[] = []
  let next: string | undefined
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const path = pathOf(collectionOf('serviceaccounts', 'metadata.name', scope), {
      limit: String(PAGE_ITEMS),
      ...(next === undefined ? {} : { continue: next }),
    })
    // Each page begins where the one before it ended.
    const { body } = await client.request({ method: 'GET', path, deadlineMs })
    if (!isListPage(body)) throw new Error('the answer is not a list')
    accounts.push(...body.items.map(readAccount))
    next = body.metadata.continue
    if (next === undefined || next === '') return accounts
  }
  return undefined
}
