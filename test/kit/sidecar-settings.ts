/** The settings that put a sidecar on this machine between a gateway and an API server of the tests. */

export type SidecarPlace = {
  readonly gateway: { readonly url: string }
  readonly api: { readonly url: string }
  readonly caFile: string
  readonly tokenFile: string
  /** Default `stream`. */
  readonly protocol?: 'stream' | 'openclaw'
}

/** Each is a `path=value`: any ports, and the one ServiceAccount that the tests' pods have. */
export const sidecarSettings = ({
  gateway,
  api,
  caFile,
  tokenFile,
  protocol = 'stream',
}: SidecarPlace): readonly string[] => [
  'listen.workers=127.0.0.1:0',
  'listen.admin=127.0.0.1:0',
  `gateway.url=${gateway.url}`,
  `gateway.protocol=${protocol}`,
  `kubernetes.apiServer=${api.url}`,
  `kubernetes.caFile=${caFile}`,
  `kubernetes.tokenFile=${tokenFile}`,
  'k8sTrust.allowedIdentities=[{namespace: openclaw, serviceAccount: openclaw-worker}]',
]
