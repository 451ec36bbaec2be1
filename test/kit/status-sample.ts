/** A status as a gateway of some size has it, for the pictures of the page and the tests of its words. */

import type { Status } from '@openclaw-k8s/auth-sidecar/edge/status.ts'
import { CODES, type Code } from '@openclaw-k8s/auth-sidecar/denial.ts'

export const EMPTY_STATUS: Status = {
  at: '2026-11-23T12:00:00.000Z',
  version: 'test',
  startedAt: '2026-11-23T12:00:00.000Z',
  isReady: true,
  checks: [],
  streams: { open: 0, pods: 0, listed: [] },
  refusals: [],
  watch: { pods: 0, staleSeconds: 0, scopes: 0, bad: [] },
  keys: { isReviewOnly: false },
  certificates: [],
}

const AT = Date.UTC(2026, 10, 23, 14, 6, 30)
const MINUTE = 60
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

const before = (seconds: number): string => new Date(AT - seconds * 1000).toISOString()

type StreamRow = Status['streams']['listed'][number]
type RefusalRow = Status['refusals'][number]

const stream = (
  podName: string,
  nodeName: string,
  address: string,
  [seconds, messagesUp, messagesDown, bytesUp, bytesDown, hosted = 0]: readonly number[],
): StreamRow => ({
  namespace: podName.startsWith('research') ? 'research' : 'openclaw',
  podName,
  serviceAccount: podName.startsWith('research') ? 'research-agent' : 'openclaw-worker',
  nodeName,
  address,
  own: 1,
  hosted,
  since: before(seconds ?? 0),
  messagesUp: messagesUp ?? 0,
  messagesDown: messagesDown ?? 0,
  bytesUp: bytesUp ?? 0,
  bytesDown: bytesDown ?? 0,
})

const LISTED: readonly StreamRow[] = [
  stream('openclaw-worker-6b9d7c54f-x2lqp', 'pool-a-3', '10.244.3.17', [42, 12, 19, 5210, 18_400]),
  stream('openclaw-worker-6b9d7c54f-8kzwm', 'pool-a-1', '10.244.1.32', [
    19 * MINUTE,
    340,
    512,
    88_300,
    1_240_000,
    2,
  ]),
  stream('research-agent-0', 'pool-gpu-1', '10.244.7.4', [
    5 * HOUR,
    9120,
    12_400,
    4_100_000,
    96_500_000,
  ]),
  stream('openclaw-worker-6b9d7c54f-hn4tc', 'pool-a-2', '10.244.2.8', [
    2 * DAY,
    41_200,
    58_900,
    12_800_000,
    388_000_000,
    1,
  ]),
  stream('openclaw-worker-6b9d7c54f-qv7rd', 'pool-a-1', '10.244.1.12', [
    2 * DAY,
    39_800,
    55_100,
    11_900_000,
    342_000_000,
  ]),
]

const refusal = (
  code: Code,
  address: string,
  given: Partial<RefusalRow> & { readonly ago: number },
): RefusalRow => {
  const { ago, ...rest } = given
  return {
    code,
    kind: CODES[code].kind,
    message: CODES[code].message,
    address,
    isOfPod: false,
    isSigned: true,
    isOfManyPods: false,
    count: 1,
    firstAt: before(ago + 30 * MINUTE),
    lastAt: before(ago),
    ...rest,
  }
}

const podOf = (namespace: string, podName: string, serviceAccount: string) => ({
  namespace,
  podName,
  serviceAccount,
})

const REFUSALS: readonly RefusalRow[] = [
  refusal('identity_not_allowed', '10.244.5.21', {
    ago: 8,
    count: 34,
    isSigned: false,
    pod: podOf('staging', 'openclaw-worker-7c8d-l9x2k', 'openclaw-worker'),
  }),
  refusal('source_address_mismatch', '10.0.12.7', {
    ago: 3 * MINUTE,
    count: 152,
    pod: podOf('openclaw', 'openclaw-worker-6b9d7c54f-9s6bj', 'openclaw-worker'),
  }),
  refusal('audience_mismatch', '10.244.2.19', {
    ago: 11 * MINUTE,
    count: 6,
    isSigned: false,
    pod: podOf('openclaw', 'openclaw-batch-29381-4t8wz', 'openclaw-worker'),
  }),
  refusal('credential_missing', '10.244.0.1', { ago: 27 * MINUTE, count: 2, isSigned: false }),
]

export const READY_STATUS: Status = {
  at: before(0),
  version: '0.1.0',
  startedAt: before(2 * DAY + 3 * HOUR),
  isReady: true,
  checks: ['serving', 'jwks', 'pods', 'gateway', 'operator'].map((name) => ({
    name,
    warnings: [],
  })),
  streams: { open: 8, pods: 5, listed: LISTED },
  refusals: REFUSALS,
  watch: { pods: 7, staleSeconds: 0, scopes: 2, bad: [] },
  keys: { ageSeconds: 4 * MINUTE + 12, isReviewOnly: false },
  certificates: [
    {
      file: 'certificate',
      notBefore: before(61 * DAY),
      notAfter: before(-29 * DAY),
      faults: [],
      isEndingSoon: false,
    },
  ],
}

/** Nobody gets in: the gateway does not answer, and a namespace cannot be watched. */
export const UNREADY_STATUS: Status = {
  ...READY_STATUS,
  isReady: false,
  checks: READY_STATUS.checks.map(({ name }) => {
    if (name === 'gateway') {
      return { name, objection: 'nothing listens on 127.0.0.1:18789', warnings: [] }
    }
    if (name === 'operator') {
      return { name, objection: 'the operator channel is down', warnings: [] }
    }
    return {
      name,
      warnings: name === 'pods' ? ['namespace research: the watch is down'] : [],
    }
  }),
  streams: { open: 0, pods: 0, listed: [] },
  watch: {
    pods: 7,
    staleSeconds: 95.2,
    scopes: 2,
    bad: [{ scope: 'namespace research', state: 'stale' }],
  },
}

/** A status whose every name is `name`: of a pod, its account, its node, a check, a scope. */
export const withNames = (name: string): Status => ({
  ...UNREADY_STATUS,
  checks: [{ name, objection: name, warnings: [name] }],
  streams: {
    open: 1,
    pods: 1,
    listed: LISTED.slice(0, 1).map((row) => ({
      ...row,
      namespace: name,
      podName: name,
      serviceAccount: name,
      nodeName: name,
    })),
  },
  refusals: REFUSALS.slice(0, 1).map((row) => ({
    ...row,
    pod: { namespace: name, serviceAccount: name, podName: name },
  })),
  watch: { ...UNREADY_STATUS.watch, bad: [{ scope: name, state: 'stale' }] },
})
