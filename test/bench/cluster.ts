/** What surrounds a proxy on a cluster: an API server that vouches for tokens, and a certificate. */

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createAuthority } from '../kit/authority.ts'
import type { ApiServerReady, CredentialKind, CredentialRequest } from './api-server.ts'

export type TlsFiles = {
  readonly certFile: string
  readonly keyFile: string
  readonly caFile: string
  /** Certificate and key in one file, as HAProxy wants them. */
  readonly bundleFile: string
}

export type Cluster = Awaited<ReturnType<typeof startCluster>>

export const startCluster = async (directory: string) => {
  const child = fork(new URL('api-server.ts', import.meta.url), [directory])
  const [ready] = (await once(child, 'message')) as [ApiServerReady]
  return {
    ...ready,
    tls: await writeCertificate(directory),
    /** A file of credentials for the client; at least one for each pod. */
    credentials: async (kind: CredentialKind, count = 0): Promise<string> => {
      child.send({ kind, count } satisfies CredentialRequest)
      const [file] = (await once(child, 'message')) as [string]
      return file
    },
    stop: async () => {
      const exited = once(child, 'exit')
      child.disconnect()
      await exited
    },
  }
}

const writeCertificate = async (directory: string): Promise<TlsFiles> => {
  const authority = await createAuthority('bench')
  const { cert, key } = await authority.issue({ commonName: 'proxy', hosts: ['127.0.0.1'] })
  const write = (name: string, text: string): string => {
    const file = join(directory, name)
    writeFileSync(file, text, { mode: 0o600 })
    return file
  }
  return {
    certFile: write('tls.crt', cert),
    keyFile: write('tls.key', key),
    caFile: write('tls-ca.crt', authority.cert),
    bundleFile: write('tls.pem', `${cert}\n${key}`),
  }
}
