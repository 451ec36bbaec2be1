/** The schema of the whole configuration: every option with its unit, default and bounds. */

import * as z from 'zod'
import { address, apiServerUrl, gatewayUrl, publicHost } from './addresses.ts'
import { duration, minutes } from './units.ts'
import { filePath, stringList } from './names.ts'
import { addCrossFieldRules } from './rules.ts'
import { jwks, limits, review } from './schema-limits.ts'
import { k8sTrust } from './schema-trust.ts'

const tls = z.strictObject({
  certFile: filePath().describe('PEM file with the certificate chain of the worker port.'),
  keyFile: filePath().describe('PEM file with the private key of the certificate.'),
  clientCaFile: filePath()
    .optional()
    .describe('PEM file with the CAs of worker certificates. If set, mutual TLS is required.'),
  serverNames: stringList(16, 253)
    .optional()
    .describe(
      'Host names or addresses workers connect to, 1 to 16: the certificate must be for each. Default: not checked.',
    ),
  minVersion: z
    .enum(['TLSv1.3', 'TLSv1.2'])
    .default('TLSv1.3')
    .describe('Lowest version of TLS, TLSv1.3 or TLSv1.2. Default TLSv1.3.'),
})

const listen = z.strictObject({
  workers: address()
    .prefault('[::]:18443')
    .describe(
      'Address of the worker port as host:port. [::] is every address, IPv4 too, and only IPv4 where there is no IPv6. Default [::]:18443.',
    ),
  admin: address()
    .prefault('[::]:9464')
    .describe(
      'Address of the admin port (metrics, probes) as host:port, as listen.workers. Default [::]:9464.',
    ),
  publicHost: publicHost()
    .optional()
    .describe(
      'X-Forwarded-Host sent to the gateway: host or host:port. Default: the address the worker connected to.',
    ),
  tls: tls.optional().describe('TLS on the worker port. Default: none, plain TCP.'),
})

const gateway = z.strictObject({
  url: gatewayUrl()
    .default('ws://127.0.0.1:18789')
    .describe('URL of the gateway: ws:// on loopback. Default ws://127.0.0.1:18789.'),
  protocol: z
    .enum(['openclaw', 'stream'])
    .default('openclaw')
    .describe(
      'Protocol of the first frames: openclaw, or stream to relay any WebSocket. Default openclaw.',
    ),
  auth: z
    .strictObject({
      mode: z
        .enum(['token', 'password', 'trusted-proxy'])
        .default('token')
        .describe('Auth mode of the gateway (protocol openclaw only). Default token.'),
      secretFile: filePath()
        .default('/etc/openclaw-gateway/token')
        .describe(
          "File with the gateway's token or password (protocol openclaw only). Default /etc/openclaw-gateway/token.",
        ),
    })
    .prefault({})
    .describe('How the sidecar authenticates to the gateway.'),
  deviceSeedFile: filePath()
    .default('/etc/auth-sidecar/device-seed')
    .describe(
      'File with the seed of the device keys (protocol openclaw only). Default /etc/auth-sidecar/device-seed.',
    ),
  connectTimeout: duration({ min: 10, max: minutes(1) })
    .prefault('5s')
    .describe(
      'Longest wait for the gateway to accept a connection and upgrade it, 10ms to 1m. Default 5s.',
    ),
  sessionHosting: z
    .boolean()
    .default(false)
    .describe(
      'Relay the routes of session hosting for workers whose entry has allowSessionHosting (protocol openclaw only). Default false.',
    ),
  assertion: z
    .boolean()
    .optional()
    .describe(
      'Send X-OpenClaw-K8s-Assertion, a signed statement of the identity. Default: true with protocol stream, false with openclaw, whose gateway does not read it.',
    ),
  allowRemoteGateway: z
    .boolean()
    .default(false)
    .describe('Allow a gateway outside this pod, over unencrypted ws://. Default false.'),
})

const kubernetes = z.strictObject({
  apiServer: apiServerUrl()
    .optional()
    .describe(
      'https:// URL of the API server, with a path where a proxy needs one. Default: in-cluster.',
    ),
  caFile: filePath()
    .optional()
    .describe('PEM file with the CA of the API server. Default: in-cluster.'),
  tokenFile: filePath()
    .optional()
    .describe("File with the sidecar's own token, reread when it is rotated. Default: in-cluster."),
  issuers: stringList(16, 1_024)
    .optional()
    .describe("Accepted token issuers, 1 to 16. Default: the issuer in the cluster's discovery."),
})

const drain = z.strictObject({
  window: duration({ min: 0, max: minutes(10) })
    .prefault('20s')
    .describe('Time over which a drain spreads the closing of streams, 0s to 10m. Default 20s.'),
})

const log = z.strictObject({
  level: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace'])
    .default('info')
    .describe('Lowest level that is logged. Default info.'),
})

/** The options that a call to the running sidecar needs, each with its default. */
export const CALL_OPTIONS = {
  admin: listen.shape.admin,
  apiServer: kubernetes.shape.apiServer,
  tokenFile: kubernetes.shape.tokenFile,
  window: drain.shape.window,
}

/** The document: parsed from its notation to the `Config` that the code reads. */
export const configSchema = z
  .strictObject({
    listen: listen.prefault({}).describe('Where the sidecar listens.'),
    gateway: gateway.prefault({}).describe('The gateway next to the sidecar.'),
    kubernetes: kubernetes.prefault({}).describe('The API server that verifies workers.'),
    k8sTrust: k8sTrust.prefault({}).describe('Which workers are admitted, and for how long.'),
    jwks: jwks.prefault({}).describe("The cluster's signing keys."),
    review: review.prefault({}).describe('TokenReviews and the cache of their verdicts.'),
    limits: limits.prefault({}).describe('Limits on connections, streams, messages and failures.'),
    drain: drain.prefault({}).describe('How the sidecar drains its streams.'),
    log: log.prefault({}).describe('The log on stderr.'),
  })
  .superRefine(addCrossFieldRules)

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T

/**
 * The configuration as the code reads it, with the names of the document. Durations are in
 * milliseconds, sizes in bytes, rates in events per second; addresses are `{ host, port }`.
 */
export type Config = DeepReadonly<z.output<typeof configSchema>>

/** The JSON Schema (2020-12) of the document as it is written. */
export const jsonSchema = (): Record<string, unknown> => {
  const { $schema, ...rest } = z.toJSONSchema(configSchema, { io: 'input' })
  return {
    $schema,
    $id: 'urn:openclaw:auth-sidecar:config',
    title: 'Configuration of the OpenClaw auth sidecar',
    ...rest,
  }
}

/** A configuration in the notation of the document; it loads again to the same `Config`. */
export const toDocument = (config: Config): Record<string, unknown> =>
  z.encode(configSchema, config as z.output<typeof configSchema>)
