/** Reads the certificates of the worker port. */

import type { TlsOptions } from 'node:tls'

export type TlsFiles = {
  readonly certFile: string
  readonly keyFile: string
  /** If set, every worker must present a certificate of this CA. */
  readonly clientCaFile?: string | undefined
  /** Names the certificate must be for. */
  readonly serverNames?: readonly string[] | undefined
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3'
}

/** What a server needs for its handshakes, in PEM. */
export type TlsMaterial = Pick<TlsOptions, 'minVersion' | 'requestCert' | 'rejectUnauthorized'> & {
  readonly cert: string
  readonly key: string
  readonly ca?: string
}

/** `undefined` if TLS is off. Throws what `readFile` throws. */
export function readTls(
  files: TlsFiles | undefined,
  readFile: (path: string) => string,
): TlsMaterial | undefined {
  if (files === undefined) return undefined
  const { minVersion } = files
  const server = { ...readPair(files, readFile), minVersion }
  if (files.clientCaFile === undefined) return server
  return {
    ...server,
    ...readClientCa(files, readFile),
    requestCert: true,
    rejectUnauthorized: true,
  }
}

/** The server's certificate and its key. Throws what `readFile` throws. */
export const readPair = ({ certFile, keyFile }: TlsFiles, readFile: (path: string) => string) => ({
  cert: readFile(certFile),
  key: readFile(keyFile),
})

/** Nothing without a client CA. Throws what `readFile` throws. */
export const readClientCa = ({ clientCaFile }: TlsFiles, readFile: (path: string) => string) =>
  clientCaFile === undefined ? {} : { ca: readFile(clientCaFile) }
