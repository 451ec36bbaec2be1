/** Settings that weaken the protection on purpose: the operator should know about them. */

import type { Config } from '../config/schema.ts'
import { findNodeObjection, NODE_REMEDY } from '../lib/node-floor.ts'
import { findFilesObjection, readOpenFilesMax } from '../lib/open-files.ts'
import { version } from '../version.ts'
import { ok, warn, type DoctorContext, type Finding } from './finding.ts'

const CACHE_TTL_MS_MAX = 60_000

/** The document itself is valid: otherwise the doctor would not have started. */
export function examineSettings({ config, warnings, readFile }: DoctorContext): readonly Finding[] {
  const { enabled, allowedIdentities } = config.k8sTrust
  const count = allowedIdentities.length
  return [
    ok('configuration', `valid, ${count} ${count === 1 ? 'identity' : 'identities'} allowed`),
    ...warnings.map((what): Finding => ({ level: 'warn', name: 'configuration', what })),
    ...(enabled
      ? []
      : [
          warn(
            'trust',
            'k8sTrust.enabled is false: every worker is refused',
            'Set it to true to admit workers.',
          ),
        ]),
    ...warnOfNode(version.node),
    ...warnOfFiles(config, readOpenFilesMax(readFile)),
    ...warnOfTrust(config),
    ...warnOfTransport(config),
  ]
}

function* warnOfNode(node: string): Iterable<Finding> {
  const objection = findNodeObjection(node)
  if (objection !== undefined) yield warn('node', objection, NODE_REMEDY)
}

function* warnOfFiles({ limits }: Config, openFilesMax: number): Iterable<Finding> {
  const objection = findFilesObjection(openFilesMax, limits.streams)
  if (objection === undefined) return
  const remedy = "Raise the limit of the container's runtime, or lower limits.streams."
  yield warn('open-files', objection, remedy)
}

function* warnOfTrust({ k8sTrust, review }: Config): Iterable<Finding> {
  if (k8sTrust.sourceAddress === 'report') {
    yield warn(
      'source-address',
      'k8sTrust.sourceAddress is report: a token stolen from a pod works from any address',
      "Set it to enforce, unless the network hides the pods' addresses.",
    )
  }
  if (k8sTrust.allowHostNetwork) {
    yield warn(
      'host-network',
      'k8sTrust.allowHostNetwork is true: every process on such a node has the address of the pod',
      'Set it to false, unless workers need the host network.',
    )
  }
  if (review.cacheTtl > CACHE_TTL_MS_MAX) {
    yield warn(
      'verdicts',
      `review.cacheTtl is ${review.cacheTtl / 1000}s: for that long, a token the API server would now refuse is still admitted`,
      'Set it to 60s or less.',
    )
  }
}

function* warnOfTransport({ gateway, listen }: Config): Iterable<Finding> {
  if (gateway.allowRemoteGateway) {
    yield warn(
      'gateway',
      `gateway.allowRemoteGateway is true: traffic to ${gateway.url} is not encrypted`,
      'Run the gateway in this pod, and set it to false.',
    )
  }
  if (listen.tls === undefined) {
    yield warn(
      'tls',
      'listen.tls is not set: anyone who can read the pod network can read the tokens',
      'Set listen.tls, unless the network itself is encrypted.',
    )
  }
}
