/** Records the edge's decisions as metrics, audit lines and log lines. */

import type { Code } from '../denial.ts'
import type { Fault } from '../fault.ts'
import { GatewayRefused } from '../gateway-refusal.ts'
import type { Claimed, Claims, Identity } from '../identity.ts'
import type { RelaySum, RelayTotals } from '../lib/relay-totals.ts'
import type { Audit } from './audit.ts'
import type { FaultLog } from './fault-log.ts'
import { kindOf, type Metrics } from './metrics.ts'
import type { RecentRefusals } from './recent-refusals.ts'

/** What is known about a worker so far, for the audit line: claimed, then signed, then proven. */
export type AuthAttempt = {
  /** A credential was found. */
  hasCredential?: true
  /** What its token says, verified or not. */
  claimed?: Claimed | undefined
  /** The claims of a token whose signature is valid, or of the pod that alone has the address. */
  signed?: Claims
  identity?: Identity
  role?: string
  /** The route of session hosting that was asked for. */
  route?: string
  fault?: Fault
}

type Refused = {
  readonly code: Code
  readonly address: string
  readonly attempt: Readonly<AuthAttempt>
  readonly durationMs: number
}

type Admitted = {
  readonly streamId: string
  readonly address: string
  readonly identity: Identity
  readonly role: string
  /** The route of session hosting; `undefined` for a worker's own stream. */
  readonly route?: string | undefined
  readonly durationMs: number
}

type Closed = Admitted & {
  readonly code: Code | 'completed'
  readonly counts: RelayTotals
}

export type Recorder = {
  readonly refused: (refused: Refused) => void
  readonly admitted: (admitted: Admitted) => void
  /** `durationMs` is the life of the stream. */
  readonly closed: (closed: Closed) => void
  /** A revoked stream is gone, `latencyMs` after we knew that it had to end. */
  readonly revoked: (latencyMs: number) => void
}

export type RecorderOptions = {
  readonly metrics: Metrics
  readonly audit: Audit
  readonly refusals: Pick<RecentRefusals, 'add'>
  /** Gets the faults by code: an outage must not flood the log. */
  readonly faults: Pick<FaultLog, 'failed'>
  /** Gets the totals of every stream that ended. */
  readonly totals: Pick<RelaySum, 'add'>
  /** Source addresses are only reported; every line then says so. */
  readonly isSourceUnenforced: () => boolean
  /** The addresses that the watch shows for a pod; none if it does not show the pod. */
  readonly addressesOf: (podUid: string) => readonly string[]
}

/** Unsigned claims are cut to this many characters when they are written down. */
const CLAIM_LENGTH_MAX = 64
/** A pod has one address, or one of each family. */
const POD_ADDRESSES_MAX = 4

export function createRecorder(options: RecorderOptions): Recorder {
  const { metrics, audit } = options
  const sourceOf = (remoteIp: string) =>
    options.isSourceUnenforced() ? { remoteIp, sourceAddress: 'report' } : { remoteIp }
  /** Where a worker should have come from: SNAT and theft look alike without it. */
  const addressesOf = (code: Code | 'completed', podUid: string | undefined) => {
    if (code !== 'source_address_mismatch' || podUid === undefined) return {}
    return { podAddresses: options.addressesOf(podUid).slice(0, POD_ADDRESSES_MAX) }
  }
  return {
    refused({ code, address, attempt, durationMs }) {
      const { route } = attempt
      countRefused(metrics, { code, attempt, durationMs })
      if (attempt.fault !== undefined) recordFault(options, address, attempt.fault)
      const line = { event: 'k8s-auth-failed', code, ...sourceOf(address), route } as const
      const { signed, claimed } = attempt
      const pod = signed ?? claimed
      options.refusals.add({ code, address, route, pod, isSigned: signed !== undefined })
      const group = { code, address, podUid: signed?.podUid, route }
      const addresses = addressesOf(code, signed?.podUid ?? claimed?.podUid)
      if (signed !== undefined) {
        audit.aggregate(group, { ...line, ...subjectOf(attempt), ...addresses })
      } else if (claimed === undefined) audit.aggregate(group, line)
      else audit.aggregate(group, line, { ...claimedFields(claimed), ...addresses })
    },

    admitted({ streamId, address, identity, role, route, durationMs }) {
      countAdmitted(metrics, { identity, route, durationMs })
      audit.write({
        event: 'k8s-auth-success',
        ...subjectOf({ identity, role }),
        ...sourceOf(address),
        route,
        streamId,
      })
    },

    revoked: (latencyMs) => metrics.revocationSeconds.observe(latencyMs / 1000),

    closed({ streamId, address, identity, role, route, code, counts, durationMs }) {
      if (route === undefined) metrics.sessionsActive.dec({ namespace: identity.namespace })
      else metrics.hostedStreamsActive.dec()
      metrics.streamCloses.inc({ code })
      options.totals.add(counts)
      metrics.streamSeconds.observe(durationMs / 1000)
      audit.write({
        event: 'k8s-session-closed',
        ...subjectOf({ identity, role }),
        ...sourceOf(address),
        ...addressesOf(code, identity.podUid),
        route,
        code,
        streamId,
        durationSeconds: Math.round(durationMs) / 1000,
        bytesUp: counts.bytesUp,
        bytesDown: counts.bytesDown,
      })
    },
  }
}

function countRefused(
  metrics: Metrics,
  { code, attempt, durationMs }: Omit<Refused, 'address'>,
): void {
  const { route, hasCredential } = attempt
  if (route !== undefined) metrics.hostedRequests.inc({ route, result: 'failed' })
  if (hasCredential === true) {
    metrics.authAttempts.inc({ result: 'failed' })
    metrics.authFailures.inc({ kind: kindOf(code), code })
    metrics.admissionSeconds.observe({ result: 'failed' }, durationMs / 1000)
  } else metrics.upgradesRefused.inc({ code })
}

function countAdmitted(
  metrics: Metrics,
  { identity, route, durationMs }: Pick<Admitted, 'identity' | 'route' | 'durationMs'>,
): void {
  metrics.authAttempts.inc({ result: 'success' })
  metrics.admissionSeconds.observe({ result: 'success' }, durationMs / 1000)
  if (route === undefined) return metrics.sessionsActive.inc({ namespace: identity.namespace })
  metrics.hostedStreamsActive.inc()
  metrics.hostedRequests.inc({ route, result: 'success' })
}

function recordFault({ metrics, faults }: RecorderOptions, address: string, err: Fault) {
  const { code } = err
  const refusal = err instanceof GatewayRefused ? err.refusal : undefined
  if (refusal !== undefined) metrics.gatewayRefusals.inc({ reason: refusal })
  faults.failed(refusal ?? code, err, { code, address })
}

/** The subject, in the original field names; `displayName` is the verified pod name. */
function subjectOf({ signed, identity, role }: Readonly<AuthAttempt>) {
  const subject = identity ?? signed
  return {
    namespace: subject?.namespace,
    serviceAccount: subject?.serviceAccount,
    podUid: subject?.podUid,
    displayName: subject?.podName,
    nodeName: subject?.nodeName,
    credentialId: identity?.credentialId ?? signed?.tokenId,
    role,
  }
}

const claimedFields = ({ namespace, serviceAccount, podName }: Claimed) => ({
  namespace: cut(namespace),
  serviceAccount: cut(serviceAccount),
  ...(podName === undefined ? {} : { podName: cut(podName) }),
})

const cut = (text: string): string => text.slice(0, CLAIM_LENGTH_MAX)
