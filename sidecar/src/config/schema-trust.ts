/** The schema of the trust in the cluster: who may enter, and for how long. */

import * as z from 'zod'
import { duration, hours, seconds } from './units.ts'
import { credentialHeader, namePattern, words } from './names.ts'

/** The longest wait a Node timer can hold is 2^31-1 ms; an option that becomes a timer is shorter. */
const TIMER_MAX = hours(576)

const identity = z.strictObject({
  namespace: namePattern('namespace').describe(
    'Namespace of the workers: a name, or a glob with * and ?. Required.',
  ),
  serviceAccount: namePattern('serviceAccount').describe(
    'ServiceAccount of the workers: a name, or a glob with * and ?. Required.',
  ),
  allowedRoles: words(16, 64)
    .default(['node'])
    .describe('Roles these workers may take, 1 to 16. Default [node].'),
  allowedCommands: words(256, 128)
    .default(['*'])
    .describe('Commands these workers may offer, 1 to 256, globs allowed. Default ["*"].'),
})

/** Omitted is allowed (`enabled: false` needs no list); an explicit empty list never is. */
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
      .describe('Whether any worker may enter. Default true; false refuses every worker.'),
    audiences: words(16, 1_024)
      .default(['openclaw-gateway'])
      .describe('Audiences a token must be for, one of 1 to 16. Default [openclaw-gateway].'),
    allowedIdentities: allowedIdentities.describe(
      'ServiceAccounts that may enter, 1 to 256. Required unless enabled is false.',
    ),
    ephemeralSessions: z
      .boolean()
      .default(true)
      .describe("Remove a worker's device from the gateway with its pod. Default true."),
    auditLog: z.boolean().default(true).describe('Write an audit line a decision. Default true.'),
    credentialHeader: credentialHeader()
      .default('X-OpenClaw-SA-Token')
      .describe(
        'Header that may carry the token beside Authorization. Default X-OpenClaw-SA-Token.',
      ),
    inBandCredentials: z
      .boolean()
      .default(true)
      .describe('Accept the credential in the first frame as well. Default true.'),
    sourceAddress: z
      .enum(['enforce', 'report'])
      .default('enforce')
      .describe("Whether a peer must have its pod's IP, or is only reported. Default enforce."),
    allowHostNetwork: z
      .boolean()
      .default(false)
      .describe("Admit pods that share their node's network. Default false."),
    maxTokenLifetime: duration({ min: seconds(1), max: hours(8_784) })
      .prefault('25h')
      .describe('Longest lifetime of an acceptable token, 1s to 8784h. Default 25h.'),
    onTokenExpiry: z
      .enum(['keep-while-pod-lives', 'close'])
      .default('keep-while-pod-lives')
      .describe('What an open stream does when its token expires. Default keep-while-pod-lives.'),
    expiredTokenReconnectGrace: duration({ min: 0, max: hours(24) })
      .prefault('0s')
      .describe(
        'How long an expired token may reconnect its live pod, 0s to 24h. Default 0s: off.',
      ),
    maxSessionAge: duration({ min: 0, max: TIMER_MAX })
      .prefault('0s')
      .describe('Longest life of a stream, 0s to 576h. Default 0s: none.'),
    terminationGrace: duration({ min: 0, max: hours(1) })
      .prefault('30s')
      .describe("How long a terminating pod's streams may finish, 0s to 1h. Default 30s."),
    maxWatchStaleness: duration({ min: 0, max: hours(1) })
      .prefault('5m')
      .describe(
        'How long a stream with an expired token outlives the watch, 0s to 1h. Default 5m.',
      ),
    onApiOutage: z
      .enum(['refuse', 'verify-locally'])
      .default('refuse')
      .describe('What new workers get while the API server is away. Default refuse.'),
  })
  .refine(({ enabled, allowedIdentities: list }) => !enabled || list?.length !== 0, {
    path: ['allowedIdentities'],
    error: 'The allow-list is missing, which would admit nobody.',
    params: { hint: 'Name at least one namespace and serviceAccount, or set enabled to false.' },
    // Reported beside every other problem, so that one look at the output is enough.
    when: ({ value }) => typeof value === 'object' && value !== null,
  })
