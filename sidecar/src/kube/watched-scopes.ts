/** The scopes under watch. Each stands alone: what one of them lacks takes nothing from the others. */

import type { Account } from '../identity.ts'
import type { Reflector } from './reflector.ts'
import { keyOf, keysCovering, type Scope } from './scope.ts'

export type WatchedScope = {
  readonly scope: Scope
  readonly pods: AnyReflector
  readonly accounts: AnyReflector
  readonly stop: () => void
}

type AnyReflector = Pick<
  Reflector<unknown>,
  'isSynced' | 'isTried' | 'staleForMs' | 'silentForMs' | 'distrust'
>

/** `unsynced` before its first list; `stale` where there has been no watch to trust for 2 s. */
type ScopeState = 'synced' | 'stale' | 'unsynced'
export type ScopeStatus = { readonly scope: Scope; readonly state: ScopeState }

/** The API server ends each watch after a while: one that is reopened by then was never down. */
const STALE_MS = 2000

export class WatchedScopes {
  readonly #scopes = new Map<string, WatchedScope>()
  #wasReady = false

  has(scope: Scope): boolean {
    return this.#scopes.has(keyOf(scope))
  }

  add(watched: WatchedScope): void {
    this.#scopes.set(keyOf(watched.scope), watched)
  }

  remove(scope: Scope): void {
    this.#scopes.delete(keyOf(scope))
  }

  list(): readonly WatchedScope[] {
    return [...this.#scopes.values()]
  }

  /**
   * Whether workers may be sent here: every scope was tried, and at least one was listed. It stays
   * true: a scope that a reload adds, or that fails later, takes nothing from the others.
   */
  get isReady(): boolean {
    if (this.#wasReady) return true
    const scopes = this.list()
    const isTried = scopes.every(({ pods, accounts }) => pods.isTried && accounts.isTried)
    this.#wasReady = isTried && (scopes.length === 0 || scopes.some(isListed))
    return this.#wasReady
  }

  listStates(): readonly ScopeStatus[] {
    return this.list().map((watched) => ({ scope: watched.scope, state: stateOf(watched) }))
  }

  /** Whether what is known of the account's pods is all there is. */
  isTrusted(account: Account): boolean {
    const covering = this.#listCovering(account)
    return (
      covering.length > 0 &&
      covering.every((watched) => isListed(watched) && stalestOf(watched) === 0)
    )
  }

  /** Milliseconds for which there has been no watch to trust; 0 while there is one, `Infinity` without. */
  staleForMs(account: Account): number {
    const covering = this.#listCovering(account)
    return covering.length === 0 ? Infinity : longest(covering, stalestOf)
  }

  /**
   * The same for the worst of the scopes that were listed once. One that never was has no stream, and
   * its state says so.
   */
  get longestStaleForMs(): number {
    return longest(this.list().filter(isListed), stalestOf)
  }

  /** Milliseconds since the account's pod watch last proved that it works; `Infinity` without one. */
  silentForMs(account: Account): number {
    return this.#silence(account, ({ pods }) => pods)
  }

  /** The same for the watch of the ServiceAccount. */
  accountsSilentForMs(account: Account): number {
    return this.#silence(account, ({ accounts }) => accounts)
  }

  /** The account's pod watch did not show what the API server shows. */
  distrustPods(account: Account): void {
    for (const { pods } of this.#listCovering(account)) pods.distrust()
  }

  /** The same for the watch of the ServiceAccount. */
  distrustAccounts(account: Account): void {
    for (const { accounts } of this.#listCovering(account)) accounts.distrust()
  }

  #silence(account: Account, pick: (watched: WatchedScope) => AnyReflector): number {
    const covering = this.#listCovering(account)
    if (covering.length === 0) return Infinity
    return longest(covering, (watched) => pick(watched).silentForMs)
  }

  /** By key, since this is asked once a second for every stream, and for each admission. */
  #listCovering(account: Account): readonly WatchedScope[] {
    return keysCovering(account)
      .map((key) => this.#scopes.get(key))
      .filter((watched) => watched !== undefined)
  }
}

const isListed = ({ pods, accounts }: WatchedScope): boolean => pods.isSynced && accounts.isSynced

const stalestOf = ({ pods, accounts }: WatchedScope): number =>
  Math.max(pods.staleForMs, accounts.staleForMs)

const stateOf = (watched: WatchedScope): ScopeState => {
  if (!isListed(watched)) return 'unsynced'
  return stalestOf(watched) > STALE_MS ? 'stale' : 'synced'
}

const longest = (
  scopes: readonly WatchedScope[],
  read: (watched: WatchedScope) => number,
): number => Math.max(0, ...scopes.map(read))
