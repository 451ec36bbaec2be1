/** What the configuration allows on purpose, and whoever reads it should know. */

import type { Config } from '../config/schema.ts'
import { ok, warn, type Finding, type Patient } from './finding.ts'

const CACHE_TTL_MS_MAX = 60_000

/** The document is good, or there would be no examination. */
export function examineSettings({ config, warnings }: Patient): readonly Finding[] {
  const { enabled, allowedIdentities } = config.k8sTrust
  const count = allowedIdentities.length
  return [
    ok('configuration', `good, ${count} ${count === 1 ? 'identity' : 'identities'} allowed`),
    ...warnings.map((what): Finding => ({ level: 'warn', name: 'configuration', what })),
    ...(enabled
      ? []
      : [
          warn(
            'trust',
            'k8sTrust.enabled is false: every worker is refused',
            'Set it to true when workers are to enter.',
          ),
        ]),
    ...warnOfTrust(config),
    ...warnOfTransport(config),
  ]
}

function* warnOfTrust({ k8sTrust, review }: Config): Iterable<Finding> {
  if (k8sTrust.sourceAddress === 'report') {
    yield warn(
      'source-address',
      'k8sTrust.sourceAddress is report: a token that was stolen from a pod works from anywhere',
      "Set it to enforce, unless the network hides the pods' addresses.",
    )
  }
  if (k8sTrust.allowHostNetwork) {
    yield warn(
      'host-network',
      'k8sTrust.allowHostNetwork is true: whatever runs on such a node has the address of the pod',
      'Set it to false, unless workers need the network of their node.',
    )
  }
  if (review.cacheTtl > CACHE_TTL_MS_MAX) {
    yield warn(
      'verdicts',
      `review.cacheTtl is ${review.cacheTtl / 1000}s: so long a token may enter that the API server would refuse`,
      'Set it to 60s or less.',
    )
  }
}

function* warnOfTransport({ gateway, listen }: Config): Iterable<Finding> {
  if (gateway.allowRemoteGateway) {
    yield warn(
      'gateway',
      `gateway.allowRemoteGateway is true: what goes to ${gateway.url} is not encrypted`,
      'Put the gateway into this pod, and set it to false.',
    )
  }
  if (listen.tls === undefined) {
    yield warn(
      'tls',
      'listen.tls is not set: who can read the network between the pods can read the tokens',
      'Set listen.tls, unless the network itself encrypts.',
    )
  }
}
