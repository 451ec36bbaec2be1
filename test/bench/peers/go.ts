/** Go's `httputil.ReverseProxy` behind a TokenReview cache: what kube-rbac-proxy and oauth2-proxy are made of. */

import { startChild } from '../child.ts'
import { buildGo, findGo } from '../go-programs.ts'
import { processTree } from '../processes.ts'
import type { Absent, Peer, Surroundings } from './peer.ts'

export const goPeers = (): readonly (Peer | Absent)[] => {
  const version = findGo()
  if (version === undefined) return [{ name: 'go', absent: 'there is no go on the PATH' }]
  return [
    {
      name: 'go',
      about: `httputil.ReverseProxy of ${version}, TokenReview cache`,
      start: (surroundings) => start(reviewFlags(surroundings), surroundings),
    },
    {
      name: 'go-unauthenticated',
      about: `httputil.ReverseProxy of ${version}, asks nobody`,
      onlyHandshakes: true,
      start: (surroundings) => start([], surroundings),
    },
  ]
}

const reviewFlags = ({ cluster }: Surroundings): readonly string[] => [
  `-api-server=${cluster.url}`,
  `-ca-file=${cluster.caFile}`,
  `-token-file=${cluster.tokenFile}`,
]

const start = async (flags: readonly string[], { upstream, tls }: Surroundings) => {
  const tlsFlags =
    tls === undefined ? [] : [`-tls-cert-file=${tls.certFile}`, `-tls-key-file=${tls.keyFile}`]
  const program = buildGo('peers/go-reverse-proxy')
  const child = startChild([program, `-upstream=http://${upstream}`, ...flags, ...tlsFlags])
  return {
    address: await child.nextLine(),
    pids: () => processTree(child.pid),
    stop: child.stop,
  }
}
