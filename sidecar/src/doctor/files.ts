/** Whether every file the sidecar reads exists and holds what it should. */

import { messageOf } from '../lib/errors.ts'
import { checkFiles } from '../config/files.ts'
import { createDeviceKeys } from '../dialect/openclaw/device-key.ts'
import { locateApiServer } from '../kube/in-cluster.ts'
import { fail, ok, type DoctorContext, type Finding } from './finding.ts'

const IN_CLUSTER = ['kubernetes.caFile', 'kubernetes.tokenFile']
const OF_OPENCLAW = ['gateway.auth.secretFile', 'gateway.deviceSeedFile']
const TLS = ['listen.tls.certFile', 'listen.tls.keyFile', 'listen.tls.clientCaFile']

/** Inside the pod, files at default paths must exist as well. */
export function examineFiles(context: DoctorContext): readonly Finding[] {
  const { config, explicitPaths, env, readFile } = context
  const { protocol, deviceSeedFile } = config.gateway
  const needed = [
    ...(protocol === 'openclaw' ? OF_OPENCLAW : []),
    ...IN_CLUSTER,
    ...TLS.filter((path) => explicitPaths.has(path)),
  ]
  let { kubernetes } = config
  try {
    kubernetes = { ...kubernetes, ...filesOf(locateApiServer(kubernetes, env)) }
  } catch {
    // The cluster check reports this.
  }
  const paths = new Set([...explicitPaths, ...needed])
  const problems = checkFiles({ ...config, kubernetes }, paths, readFile)
  const findings = problems.map(({ path, where, reason, hint = '' }) =>
    fail('files', `${path} (${where}): ${reason}`, hint),
  )
  if (protocol === 'openclaw' && !problems.some(({ path }) => path === 'gateway.deviceSeedFile')) {
    findings.push(...examineSeed(readFile(deviceSeedFile)))
  }
  return findings.length > 0 ? findings : [ok('files', `${needed.join(', ')}: readable`)]
}

const filesOf = ({ caFile, tokenFile }: ReturnType<typeof locateApiServer>) => ({
  caFile,
  tokenFile,
})

function examineSeed(seed: string): Finding[] {
  try {
    createDeviceKeys(seed)
    return []
  } catch (error) {
    const what = `gateway.deviceSeedFile: ${messageOf(error)}`
    return [fail('files', what, 'Write 32 random bytes to it, in base64 or hexadecimal.')]
  }
}
