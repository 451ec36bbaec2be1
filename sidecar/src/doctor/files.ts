/** Whether every file the sidecar reads is there and holds what it should. */

import { checkFiles } from '../config/files.ts'
import { createDeviceKeys } from '../dialect/openclaw/device-key.ts'
import { locateApiServer } from '../kube/in-cluster.ts'
import { fail, ok, type Finding, type Patient } from './finding.ts'

const IN_CLUSTER = ['kubernetes.caFile', 'kubernetes.tokenFile']
const OF_OPENCLAW = ['gateway.auth.secretFile', 'gateway.deviceSeedFile']
const TLS = ['listen.tls.certFile', 'listen.tls.keyFile', 'listen.tls.clientCaFile']

/** Inside the pod the files that go by default have to be there as well. */
export function examineFiles(patient: Patient): readonly Finding[] {
  const { config, explicitPaths, env, readFile } = patient
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
    // The examination of the cluster says so.
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
    const what = `gateway.deviceSeedFile: ${error instanceof Error ? error.message : String(error)}`
    return [fail('files', what, 'Put 32 random bytes there, in base64 or hexadecimal.')]
  }
}
