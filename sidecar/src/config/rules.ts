/** Rules between options: what each allows alone and no two allow together. */

import type { RefinementCtx } from 'zod'
import { endpointOf } from '../lib/address.ts'
import { isLoopbackHost, isWildcardHost } from './addresses.ts'
import type { Address } from './addresses.ts'

type Ruled = {
  readonly listen: { readonly workers: Address; readonly admin: Address }
  readonly gateway: { readonly url: string; readonly allowRemoteGateway: boolean }
  readonly jwks: { readonly refresh: number; readonly staleAfter: number }
}

type Refuse = (path: string[], message: string, hint: string) => void

/** Says what no two options allow together, each problem at the option to change. */
export function addCrossFieldRules(config: Ruled, context: RefinementCtx): void {
  const refuse: Refuse = (path, message, hint) =>
    context.addIssue({ code: 'custom', path, message, params: { hint } })
  checkGateway(config, refuse)
  if (areSame(config.listen.workers, config.listen.admin)) {
    refuse(
      ['listen', 'admin'],
      'The admin port is the worker port.',
      'Give them different ports; workers must not reach the admin port.',
    )
  }
  if (config.jwks.staleAfter < config.jwks.refresh) {
    refuse(
      ['jwks', 'staleAfter'],
      'The keys would be too old to serve before they are fetched anew.',
      'Make jwks.staleAfter at least jwks.refresh.',
    )
  }
}

function checkGateway({ gateway, listen }: Ruled, refuse: Refuse): void {
  // What is no URL has been complained about by the option's own check, after which zod goes on.
  const url = URL.parse(gateway.url)
  if (url === null) return
  const isLocal = isLoopbackHost(url.hostname)
  if (!isLocal && !gateway.allowRemoteGateway) {
    refuse(
      ['gateway', 'url'],
      'The gateway is not on loopback, and ws:// hides nothing on a network.',
      'Use 127.0.0.1, or set gateway.allowRemoteGateway to true.',
    )
  }
  if (!isLocal && !isWildcardHost(url.hostname)) return
  for (const name of ['workers', 'admin'] as const) {
    if (listen[name].port !== endpointOf(url).port) continue
    refuse(
      ['gateway', 'url'],
      `The gateway has the port of listen.${name}: the sidecar would dial itself.`,
      'Give the gateway and the sidecar different ports.',
    )
  }
}

const areSame = (one: Address, other: Address): boolean =>
  one.port !== 0 &&
  one.port === other.port &&
  (one.host === other.host || isWildcardHost(one.host) || isWildcardHost(other.host))
