/** Reads the certificates of the worker port. */

import type { SecureContextOptions, TlsOptions } from 'node:tls'
import type { Config } from '../config/schema.ts'

/** With a client CA every worker must show a certificate of it. `undefined` where TLS is off. */
export function readTls(
  { listen: { tls } }: Config,
  readFile: (path: string) => string,
): (TlsOptions & SecureContextOptions) | undefined {
  if (tls === undefined) return undefined
  const server = { cert: readFile(tls.certFile), key: readFile(tls.keyFile) }
  if (tls.clientCaFile === undefined) return server
  return { ...server, ca: readFile(tls.clientCaFile), requestCert: true, rejectUnauthorized: true }
}
