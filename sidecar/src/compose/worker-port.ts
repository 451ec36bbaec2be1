/** Puts the line together: precheck, policy, dialect, dialer, and the port in front of them. */

import { randomBytes } from 'node:crypto'
import type { TlsOptions } from 'node:tls'
import { createPrecheck } from '../authn/precheck.ts'
import type { VerdictCache } from '../authn/verdict-cache.ts'
import { createPolicy } from '../authz/policy.ts'
import type { Config } from '../config/schema.ts'
import { createStreamDialect } from '../dialect/stream.ts'
import { WorkerPort } from '../edge/worker-port.ts'
import type { Jwks } from '../kube/jwks.ts'
import type { Recorder } from '../observe/recorder.ts'
import { TokenBuckets } from '../token-buckets.ts'
import type { AssertionSigner } from '../tunnel/assertion.ts'
import { createGatewayDialer } from '../tunnel/gateway-dialer.ts'
import type { Streams } from '../tunnel/streams.ts'
import type { Surroundings } from './surroundings.ts'

/** TokenReviews a second that may be spent on tokens whose signature cannot be checked. */
const UNVERIFIED_PER_ADDRESS = { ratePerSecond: 1, burst: 5 }
const UNVERIFIED_IN_ALL = { ratePerSecond: 20, burst: 50 }
const FAILURE_BURST_FACTOR = 5

type Parts = {
  readonly jwks: Jwks
  readonly verdicts: VerdictCache
  readonly streams: Streams
  readonly recorder: Recorder
  readonly signer: AssertionSigner
}

export function composeWorkerPort(config: Config, around: Surroundings, parts: Parts): WorkerPort {
  const { clock, random, readFile } = around
  const { gateway, kubernetes, k8sTrust, limits, listen } = config
  const { jwks, verdicts, streams, recorder, signer } = parts
  const policy = createPolicy(k8sTrust.allowedIdentities)
  const buckets = (limit: { ratePerSecond: number; burst: number }) =>
    new TokenBuckets({ ...limit, clock })
  const precheck = createPrecheck({
    rules: {
      issuers: () => kubernetes.issuers ?? (jwks.issuer === undefined ? undefined : [jwks.issuer]),
      audiences: k8sTrust.audiences,
      maxTokenLifetimeMs: k8sTrust.maxTokenLifetime,
      isListed: policy.isListed,
    },
    keys: jwks,
    clock,
    unverifiedBudget: {
      perAddress: buckets(UNVERIFIED_PER_ADDRESS),
      inAll: buckets(UNVERIFIED_IN_ALL),
    },
  })
  const dial = createGatewayDialer({
    url: new URL(gateway.url),
    connectTimeoutMs: gateway.connectTimeout,
    workerProto: listen.tls === undefined ? 'http' : 'https',
    signer,
    clock,
  })
  const rate = limits.failuresPerAddress
  return new WorkerPort({
    line: { precheck, streams, verdicts, policy: () => policy },
    dialect: createStreamDialect({ inBandCredentials: k8sTrust.inBandCredentials, dial }),
    recorder,
    clock,
    random,
    failures: buckets({ ratePerSecond: rate, burst: rate * FAILURE_BURST_FACTOR }),
    tls: listen.tls === undefined ? undefined : readTls(listen.tls, readFile),
    isTrustEnabled: () => k8sTrust.enabled,
    credentialHeader: () => k8sTrust.credentialHeader,
    streamIdPrefix: randomBytes(4).toString('hex'),
    limits: { ...limits, handshakeTimeoutMs: limits.handshakeTimeout },
  })
}

/** With a client CA every worker must show a certificate of it. */
function readTls(
  { certFile, keyFile, clientCaFile }: NonNullable<Config['listen']['tls']>,
  readFile: (path: string) => string,
): TlsOptions {
  const server = { cert: readFile(certFile), key: readFile(keyFile) }
  if (clientCaFile === undefined) return server
  return { ...server, ca: readFile(clientCaFile), requestCert: true, rejectUnauthorized: true }
}
