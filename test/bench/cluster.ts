/** What surrounds a proxy on a cluster: an API server that vouches for tokens, and a certificate. */

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createAuthority } from '../kit/authority.ts'
import type {
  ApiServerReady,
  CredentialKind,
  CredentialRequest,
  ProbeRequest,
  Probes,
} from './api-server.ts'

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
  /** One at a time. */
  const ask = async (request: CredentialRequest | ProbeRequest): Promise<unknown> => {
    child.send(request)
    const [{ answer }] = (await once(child, 'message')) as [{ answer?: unknown }]
    return answer
  }
  return {
    ...ready,
    tls: await writeCertificate(directory),
    /** A file of credentials for the client; at least one for each pod. */
    credentials: async (kind: CredentialKind, count = 0): Promise<string> =>
      (await ask({ kind, count })) as string,
    /** Once in a run; one of the tokens expires after `lifeS` seconds. */
    createProbes: async (lifeS: number): Promise<Probes> =>
      (await ask({ probe: 'create', lifeS })) as Probes,
    /** Deletes the pod `leaving`, or ends the API server's service for the rest of the run. */
    disturb: async (probe: 'delete' | 'stop'): Promise<void> => void (await ask({ probe })),
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
