/** The proxy kube-rbac-proxy: a TokenReview, then a SubjectAccessReview, both cached, before Go's ReverseProxy. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findFreePort } from '../../kit/free-port.ts'
import { startChild } from '../child.ts'
import { accepting } from '../ports.ts'
import { processTree } from '../processes.ts'
import { buildProgram, type GoProgram } from './go-modules.ts'
import type { Absent, Peer, RunningPeer, Runtime } from './peer.ts'

const PROGRAM: GoProgram = {
  name: 'kube-rbac-proxy',
  module: 'github.com/brancz/kube-rbac-proxy@v0.22.1',
  sum: 'h1:RVHlm7qswep1dD1iDvMrqTf7pH3gwjVyvgMr+etI2A8=',
  package: './cmd/kube-rbac-proxy',
}

export const kubeRbacProxy = async (): Promise<Peer | Absent> => {
  const { name, module } = PROGRAM
  const built = await buildProgram(PROGRAM)
  if ('why' in built) return { name, absent: built.why }
  return {
    name,
    about:
      `${module}: TokenReview (kept for 2 min, refusals too) and SubjectAccessReview for \`get\` on ` +
      '`services/proxy` (kept for 5 min); its limit of requests to the API server is raised',
    start: (runtime) => start([built.path, ...RAISED], runtime),
    asShipped: { start: (runtime) => start([built.path], runtime) },
  }
}

/** By default 5 a second of each question, after a burst of 10. */
const RAISED = ['--kube-api-qps=100000', '--kube-api-burst=100000']

const start = async (command: readonly string[], runtime: Runtime): Promise<RunningPeer> => {
  const { upstream, directory, tls } = runtime
  const address = `127.0.0.1:${await findFreePort()}`
  const kubeconfig = write(directory, 'kubeconfig', kubeconfigOf(runtime))
  const config = write(directory, 'config.yaml', CONFIG)
  const child = startChild(
    [
      ...command,
      ...(tls === undefined
        ? [`--insecure-listen-address=${address}`]
        : [
            `--secure-listen-address=${address}`,
            `--tls-cert-file=${tls.certFile}`,
            `--tls-private-key-file=${tls.keyFile}`,
          ]),
      `--upstream=http://${upstream}/`,
      `--kubeconfig=${kubeconfig}`,
      `--config-file=${config}`,
      '--auth-token-audiences=openclaw-gateway',
      '--auth-header-fields-enabled',
    ],
    { logFile: join(directory, 'log'), stopSignal: 'SIGKILL' },
  )
  await accepting(address)
  return { address, pids: () => processTree(child.pid), stop: child.stop }
}

const write = (directory: string, name: string, content: unknown): string => {
  const file = join(directory, name)
  // JSON is YAML.
  writeFileSync(file, JSON.stringify(content))
  return file
}

/** What a caller must be allowed to do. */
const CONFIG = {
  authorization: {
    resourceAttributes: {
      namespace: 'openclaw',
      apiVersion: 'v1',
      resource: 'services',
      subresource: 'proxy',
      name: 'gateway',
    },
  },
}

const kubeconfigOf = ({ cluster: { url, caFile, tokenFile } }: Runtime) => ({
  apiVersion: 'v1',
  kind: 'Config',
  clusters: [{ name: 'bench', cluster: { server: url, 'certificate-authority': caFile } }],
  users: [{ name: 'proxy', user: { tokenFile } }],
  contexts: [{ name: 'bench', context: { cluster: 'bench', user: 'proxy' } }],
  'current-context': 'bench',
})
