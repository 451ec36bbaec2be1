/** Whether every file the sidecar reads exists and holds what it should. */

import { checkFiles } from '../config/files.ts'
import type { Config } from '../config/schema.ts'
import { locateApiServer } from '../kube/in-cluster.ts'
import { fail, ok, type DoctorContext, type Finding } from './finding.ts'

const IN_CLUSTER = ['kubernetes.caFile', 'kubernetes.tokenFile']
const OF_OPENCLAW = ['gateway.auth.secretFile', 'gateway.deviceSeedFile']
const TLS = ['listen.tls.certFile', 'listen.tls.keyFile', 'listen.tls.clientCaFile']

/** Inside the pod, files at default paths must exist as well. */
export function examineFiles(context: DoctorContext): readonly Finding[] {
  const { config, explicitPaths, env, readFile } = context
  const kubernetes = locateFiles(config.kubernetes, env)
  const needed = [
    ...(config.gateway.protocol === 'openclaw' ? OF_OPENCLAW : []),
    // Where they are unknown nothing was read; the cluster check says so.
    ...(kubernetes === undefined ? [] : IN_CLUSTER),
    ...TLS.filter((path) => explicitPaths.has(path)),
  ]
  const paths = new Set([...explicitPaths, ...needed])
  const located = { ...config, kubernetes: { ...config.kubernetes, ...kubernetes } }
  const problems = checkFiles(located, paths, readFile)
  if (problems.length > 0) {
    return problems.map(({ path, where, reason, hint = '' }) =>
      fail('files', `${path} (${where}): ${reason}`, hint),
    )
  }
  return needed.length === 0 ? [] : [ok('files', `${needed.join(', ')}: readable`)]
}

function locateFiles(kubernetes: Config['kubernetes'], env: NodeJS.ProcessEnv) {
  try {
    const { caFile, tokenFile } = locateApiServer(kubernetes, env)
    return { caFile, tokenFile }
  } catch {
    return undefined
  }
}
