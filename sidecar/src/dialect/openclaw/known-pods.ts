/** Whose devices may be at the gateway: the live pods, and the ServiceAccounts they may have. */

import { accountNameOf, type Account } from '../../identity.ts'
import type { PodWatch } from '../../kube/pod-watch.ts'
import { isGlob } from '../../lib/glob.ts'
import type { WatchedScopes } from '../../kube/watched-scopes.ts'
import type { PodName } from './device-key.ts'

export type KnownPodsOptions = {
  readonly watch: Pick<PodWatch, 'listPods' | 'listAccounts'> & {
    readonly scopes: Pick<WatchedScopes, 'isTrusted'>
  }
  /** As configured now. */
  readonly allowedIdentities: () => readonly Account[]
}

/** A pod in one of these phases does not connect again, although its object may stay for days. */
const ENDED = new Set(['Succeeded', 'Failed'])

export class KnownPods {
  readonly #options: KnownPodsOptions

  constructor(options: KnownPodsOptions) {
    this.#options = options
  }

  /** Of the accounts below it is all there are. */
  livePods(): readonly PodName[] {
    return [...this.#options.watch.listPods()]
      .filter(({ phase }) => !ENDED.has(phase))
      .map(({ namespace, serviceAccount, name }) => ({ namespace, serviceAccount, podName: name }))
  }

  /**
   * Those the cluster has, and those the allow-list names although they are gone. Without one whose
   * pods the watch does not show at the moment.
   */
  accounts(): readonly Account[] {
    const { watch, allowedIdentities } = this.#options
    const watched = [...watch.listAccounts()].map(({ namespace, name }) => ({
      namespace,
      serviceAccount: name,
    }))
    const listed = allowedIdentities().filter(
      ({ namespace, serviceAccount }) => !isGlob(namespace + serviceAccount),
    )
    const byName = new Map(
      [...watched, ...listed].map(({ namespace, serviceAccount }) => [
        accountNameOf({ namespace, serviceAccount }),
        { namespace, serviceAccount },
      ]),
    )
    return [...byName.values()].filter((account) => watch.scopes.isTrusted(account))
  }
}
