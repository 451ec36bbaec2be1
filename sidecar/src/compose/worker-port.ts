/** Puts the line together: precheck, policy, dialect, dialer, and the port in front of them. */

import { randomBytes } from 'node:crypto'
import { groupStrangers } from '../lib/address-group.ts'
import type { ClaimRules } from '../authn/claims.ts'
import { createPrecheck } from '../authn/precheck.ts'
import type { Voucher } from '../authn/authenticator.ts'
import type { PodBinding } from '../authz/pod-binding.ts'
import type { Dialect } from '../dialect/dialect.ts'
import { Attempts } from '../edge/attempts.ts'
import { WorkerPort } from '../edge/worker-port.ts'
import type { Jwks } from '../kube/jwks.ts'
import type { PodWatch } from '../kube/pod-watch.ts'
import type { Recorder } from '../observe/recorder.ts'
import type { PeerErrors } from '../lib/peer-errors.ts'
import { TokenBuckets } from '../lib/token-buckets.ts'
import type { Streams } from '../admissions/registry.ts'
import type { Settings } from './live-config.ts'
import { createAcceptErrorLog } from './accept-errors.ts'
import type { Surroundings } from './runtime.ts'
import { readTls } from './tls.ts'

/** TokenReviews a second that may be spent on tokens whose signature cannot be checked. */
const UNVERIFIED_PER_ADDRESS = { ratePerSecond: 1, burst: 5 }
const UNVERIFIED_IN_ALL = { ratePerSecond: 20, burst: 50 }
const FAILURE_BURST_FACTOR = 5
/** A pod may have this many times fewer short streams than failures. */
const SHORT_STREAM_DIVISOR = 10

type Parts = {
  readonly jwks: Jwks
  readonly voucher: Voucher
  readonly binding: PodBinding
  readonly streams: Streams
  readonly recorder: Recorder
  readonly dialect: Dialect
  readonly watchPeer: PeerErrors['watch']
  readonly watch: Pick<PodWatch, 'hasAddress'>
}

export function composeWorkerPort(
  settings: Settings,
  around: Surroundings,
  parts: Parts,
): WorkerPort {
  const { clock, random, readFile } = around
  const { limits } = settings.config
  const { jwks, voucher, binding, streams, recorder, dialect, watch, watchPeer } = parts
  const groupOf = groupStrangers((address) => watch.hasAddress(address))
  const buckets = (limit: { ratePerSecond: number; burst: number }) =>
    new TokenBuckets({ ...limit, clock })
  const precheck = createPrecheck({
    rules: () => claimRulesOf(settings, jwks),
    keys: jwks,
    clock,
    unverifiedBudget: {
      perAddress: buckets(UNVERIFIED_PER_ADDRESS),
      inAll: buckets(UNVERIFIED_IN_ALL),
    },
  })
  const rate = limits.failuresPerAddress
  const failures = { ratePerSecond: rate, burst: rate * FAILURE_BURST_FACTOR }
  return new WorkerPort({
    line: { precheck, streams, voucher, binding, policy: () => settings.policy },
    dialect,
    recorder,
    clock,
    random,
    attempts: new Attempts({
      perAddress: buckets(failures),
      perPod: buckets(failures),
      shortStreams: buckets({ ...failures, ratePerSecond: rate / SHORT_STREAM_DIVISOR }),
      binding,
      recorder,
      clock,
      groupOf,
    }),
    groupOf,
    tls: readTls(settings.config, readFile),
    watchPeer,
    onAcceptError: createAcceptErrorLog('workers', around),
    isTrustEnabled: () => settings.config.k8sTrust.enabled,
    publicHost: settings.config.listen.publicHost,
    credentialHeader: () => settings.config.k8sTrust.credentialHeader,
    streamIdPrefix: randomBytes(4).toString('hex'),
    limits: { ...limits, handshakeTimeoutMs: limits.handshakeTimeout },
  })
}

function claimRulesOf({ config, policy }: Settings, jwks: Jwks): ClaimRules {
  const { kubernetes, k8sTrust } = config
  return {
    issuers: () => kubernetes.issuers ?? (jwks.issuer === undefined ? undefined : [jwks.issuer]),
    audiences: k8sTrust.audiences,
    maxTokenLifetimeMs: k8sTrust.maxTokenLifetime,
    expiryGraceMs: k8sTrust.expiredTokenReconnectGrace,
    isListed: policy.isListed,
  }
}
