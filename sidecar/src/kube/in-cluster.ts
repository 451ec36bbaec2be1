/** Where the API server, its CA and our token are: as configured, or as the cluster mounts them. */

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

/** Throws an `Error` that says what to set when neither the configuration nor the pod has it. */
export function locateApiServer(named: Named, env: NodeJS.ProcessEnv): KubeLocation {
  const host = env['KUBERNETES_SERVICE_HOST']
  const port = env['KUBERNETES_SERVICE_PORT_HTTPS'] ?? env['KUBERNETES_SERVICE_PORT'] ?? '443'
  const inCluster =
    host === undefined ? undefined : `https://${isIPv6(host) ? `[${host}]` : host}:${port}`
  const apiServer = named.apiServer ?? inCluster
  if (apiServer === undefined) {
    throw new Error(
      'kubernetes.apiServer is not set and this is no pod: KUBERNETES_SERVICE_HOST is missing. ' +
        'Set kubernetes.apiServer, kubernetes.caFile and kubernetes.tokenFile.',
    )
  }
  return {
    apiServer: new URL(apiServer),
    caFile: named.caFile ?? `${MOUNT}/ca.crt`,
    tokenFile: named.tokenFile ?? `${MOUNT}/token`,
  }
}
