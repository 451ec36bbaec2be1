/** The API server's URL and our credentials for it: from the configuration, or as mounted in a pod. */

import { isIPv6 } from 'node:net'

const MOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

export type KubeLocation = {
  readonly apiServer: URL
  readonly caFile: string
  readonly tokenFile: string
}

type Named = {
  readonly apiServer?: string | undefined
  readonly caFile?: string | undefined
  readonly tokenFile?: string | undefined
}

/** Throws an `Error` that says what to set if neither the configuration nor the pod does. */
export function locateApiServer(named: Named, env: NodeJS.ProcessEnv): KubeLocation {
  const host = env['KUBERNETES_SERVICE_HOST']
  const port = env['KUBERNETES_SERVICE_PORT_HTTPS'] ?? env['KUBERNETES_SERVICE_PORT'] ?? '443'
  const inCluster =
    host === undefined ? undefined : `https://${isIPv6(host) ? `[${host}]` : host}:${port}`
  const apiServer = named.apiServer ?? inCluster
  if (apiServer === undefined) {
    throw new Error(
      'kubernetes.apiServer is not set and this process is not running in a pod ' +
        '(KUBERNETES_SERVICE_HOST is missing). ' +
        'Set kubernetes.apiServer, kubernetes.caFile and kubernetes.tokenFile.',
    )
  }
  return {
    apiServer: new URL(apiServer),
    caFile: named.caFile ?? `${MOUNT}/ca.crt`,
    tokenFile: named.tokenFile ?? `${MOUNT}/token`,
  }
}
