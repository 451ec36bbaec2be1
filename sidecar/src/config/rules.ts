/** Rules between options: values that are each valid alone but not together. */

import type { RefinementCtx } from 'zod'
import { endpointOf } from '../lib/address.ts'
import { isLoopbackHost, isWildcardHost } from './addresses.ts'
import type { Address } from './addresses.ts'

type CheckedConfig = {
  readonly listen: { readonly workers: Address; readonly admin: Address }
  readonly gateway: {
    readonly url: string
    readonly allowRemoteGateway: boolean
    readonly protocol: string
    readonly sessionHosting: boolean
  }
  readonly k8sTrust: {
    readonly allowedIdentities: readonly { readonly allowSessionHosting: boolean }[]
  }
  readonly jwks: { readonly refresh: number; readonly staleAfter: number }
}

type Refuse = (path: string[], message: string, hint: string) => void

/** Reports combinations that are not allowed, each at the option to change. */
export function addCrossFieldRules(config: CheckedConfig, context: RefinementCtx): void {
  const refuse: Refuse = (path, message, hint) =>
    context.addIssue({ code: 'custom', path, message, params: { hint } })
  checkGateway(config, refuse)
  checkSessionHosting(config, refuse)
  if (areSame(config.listen.workers, config.listen.admin)) {
    refuse(
      ['listen', 'admin'],
      'The admin port and the worker port are the same.',
      'Set different ports; workers must not reach the admin port.',
    )
  }
  if (config.jwks.staleAfter < config.jwks.refresh) {
    refuse(
      ['jwks', 'staleAfter'],
      'The keys would be too old to use before they are fetched again.',
      'Set jwks.staleAfter to at least jwks.refresh.',
    )
  }
}

function checkGateway({ gateway, listen }: CheckedConfig, refuse: Refuse): void {
  // The option's own check has already reported an invalid URL; zod continues after it.
  const url = URL.parse(gateway.url)
  if (url === null) return
  const isLocal = isLoopbackHost(url.hostname)
  if (!isLocal && !gateway.allowRemoteGateway) {
    refuse(
      ['gateway', 'url'],
      'The gateway is not on loopback, and ws:// is not encrypted.',
      'Use 127.0.0.1, or set gateway.allowRemoteGateway to true.',
    )
  }
  if (!isLocal && !isWildcardHost(url.hostname)) return
  for (const name of ['workers', 'admin'] as const) {
    if (listen[name].port !== endpointOf(url).port) continue
    refuse(
      ['gateway', 'url'],
      `The gateway has the same port as listen.${name}: the sidecar would connect to itself.`,
      'Set different ports for the gateway and the sidecar.',
    )
  }
}

/** An option without effect would look like one that works. */
function checkSessionHosting({ gateway, k8sTrust }: CheckedConfig, refuse: Refuse): void {
  if (gateway.sessionHosting && gateway.protocol !== 'openclaw') {
    refuse(
      ['gateway', 'sessionHosting'],
      'Only OpenClaw nodes host sessions, and gateway.protocol is not openclaw.',
      'Set gateway.sessionHosting to false, or gateway.protocol to openclaw.',
    )
  }
  const at = k8sTrust.allowedIdentities.findIndex((entry) => entry.allowSessionHosting)
  if (at >= 0 && !gateway.sessionHosting) {
    refuse(
      ['k8sTrust', 'allowedIdentities', String(at), 'allowSessionHosting'],
      'The entry allows session hosting, but gateway.sessionHosting is false.',
      'Set gateway.sessionHosting to true, or remove allowSessionHosting.',
    )
  }
}

const areSame = (one: Address, other: Address): boolean =>
  one.port !== 0 &&
  one.port === other.port &&
  (one.host === other.host || isWildcardHost(one.host) || isWildcardHost(other.host))
