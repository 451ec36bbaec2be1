/** Reads the certificates of the worker port. */

import type { SecureContextOptions, TlsOptions } from 'node:tls'

export type TlsFiles = {
  readonly certFile: string
  readonly keyFile: string
  /** If set, every worker must present a certificate of this CA. */
  readonly clientCaFile?: string | undefined
}

/** `undefined` if TLS is off. Throws what `readFile` throws. */
export function readTls(
  files: TlsFiles | undefined,
  readFile: (path: string) => string,
): (TlsOptions & SecureContextOptions) | undefined {
  if (files === undefined) return undefined
  const server = { cert: readFile(files.certFile), key: readFile(files.keyFile) }
  if (files.clientCaFile === undefined) return server
  return {
    ...server,
    ca: readFile(files.clientCaFile),
    requestCert: true,
    rejectUnauthorized: true,
  }
}
