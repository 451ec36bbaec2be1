/** The schema of `k8sTrust`: which workers are admitted, and for how long. */

import * as z from 'zod'
import { duration, hours, seconds } from './units.ts'
import { DEFAULT_CREDENTIAL_HEADER } from './credential-header.ts'
import { credentialHeader, namePattern, stringList } from './names.ts'

/** The longest wait a Node timer can hold is 2^31-1 ms; an option that becomes a timer is shorter. */
const TIMER_MAX = hours(576)

const identity = z.strictObject({
  namespace: namePattern('namespace').describe(
    'Namespace of the workers: a name, or a glob with * and ?. Required.',
  ),
  serviceAccount: namePattern('serviceAccount').describe(
    'ServiceAccount of the workers: a name, or a glob with * and ?. Required.',
  ),
  allowedRoles: stringList(16, 64)
    .default(['node'])
    .describe('Roles these workers can use, 1 to 16. Default [node].'),
  allowedCommands: stringList(256, 128)
    .default(['*'])
    .describe('Commands these workers can offer, 1 to 256, globs allowed. Default ["*"].'),
  allowSessionHosting: z
    .boolean()
    .default(false)
    .describe(
      'Whether these workers can host agent sessions; needs gateway.sessionHosting. Default false.',
    ),
})

/** The list can be omitted (`enabled: false` needs none); an explicit empty list is an error. */
const allowedIdentities = z.codec(
  z.array(identity).min(1).max(256).optional(),
  z.array(z.custom<z.output<typeof identity>>()),
  {
    decode: (list) => list ?? [],
    encode: (list) => (list.length === 0 ? undefined : list),
  },
)

export const k8sTrust = z
  .strictObject({
    enabled: z
      .boolean()
      .default(true)
      .describe('Whether workers are admitted. Default true; false refuses every worker.'),
    audiences: stringList(16, 1_024)
      .default(['openclaw-gateway'])
      .describe(
        'Accepted token audiences, 1 to 16; a token must have one of them. Default [openclaw-gateway].',
      ),
    allowedIdentities: allowedIdentities.describe(
      'ServiceAccounts that are admitted, 1 to 256. Required unless enabled is false.',
    ),
    ephemeralSessions: z
      .boolean()
      .default(true)
      .describe("Remove a worker's device from the gateway when its pod is gone. Default true."),
    auditLog: z
      .boolean()
      .default(true)
      .describe('Write an audit line for each decision. Default true.'),
    credentialHeader: credentialHeader()
      .default(DEFAULT_CREDENTIAL_HEADER)
      .describe(
        'Header that can carry the token instead of Authorization. Default X-OpenClaw-SA-Token.',
      ),
    inBandCredentials: z
      .boolean()
      .default(true)
      .describe('Also accept the credential in the first frame. Default true.'),
    sourceAddress: z
      .enum(['enforce', 'report'])
      .default('enforce')
      .describe(
        "Whether a worker must connect from its pod's IP (enforce), or a mismatch is only reported. Default enforce.",
      ),
    allowHostNetwork: z
      .boolean()
      .default(false)
      .describe('Admit pods on the host network. Default false.'),
    maxTokenLifetime: duration({ min: seconds(1), max: hours(8_784) })
      .prefault('25h')
      .describe('Longest lifetime of an accepted token, 1s to 8784h. Default 25h.'),
    onTokenExpiry: z
      .enum(['keep-while-pod-lives', 'close'])
      .default('keep-while-pod-lives')
      .describe(
        'What happens to an open stream when its token expires. Default keep-while-pod-lives.',
      ),
    expiredTokenReconnectGrace: duration({ min: 0, max: hours(24) })
      .prefault('0s')
      .describe(
        'How long a live pod can reconnect with an expired token, 0s to 24h. Default 0s: off.',
      ),
    maxSessionAge: duration({ min: 0, max: TIMER_MAX })
      .prefault('0s')
      .describe('Maximum age of a stream, 0s to 576h. Default 0s: no maximum.'),
    terminationGrace: duration({ min: 0, max: hours(1) })
      .prefault('30s')
      .describe('How long the streams of a terminating pod stay open, 0s to 1h. Default 30s.'),
    maxWatchStaleness: duration({ min: 0, max: hours(1) })
      .prefault('5m')
      .describe(
        'How long a stream with an expired token stays open without a pod watch, 0s to 1h. Default 5m.',
      ),
    onApiOutage: z
      .enum(['refuse', 'verify-locally'])
      .default('refuse')
      .describe('How new workers are treated while the API server is unavailable. Default refuse.'),
  })
  .refine(({ enabled, allowedIdentities: list }) => !enabled || list?.length !== 0, {
    path: ['allowedIdentities'],
    error: 'The allow-list is missing: no worker would be admitted.',
    params: { hint: 'Add at least one namespace and serviceAccount, or set enabled to false.' },
    // Reported together with every other problem, so that one run shows them all.
    when: ({ value }) => typeof value === 'object' && value !== null,
  })
