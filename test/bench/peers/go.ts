/** Go's `httputil.ReverseProxy` behind a TokenReview cache: what kube-rbac-proxy and oauth2-proxy are made of. */

import { startChild } from '../child.ts'
import { buildGo, findGo } from '../go-programs.ts'
import { processTree } from '../processes.ts'
import type { Absent, Peer, RunningPeer, Runtime } from './peer.ts'

export const goPeer = (): Peer | Absent => {
  const version = findGo()
  if (version === undefined) return { name: 'go', absent: 'there is no go on the PATH' }
  return {
    name: 'go',
    about: `httputil.ReverseProxy of ${version}, TokenReview cache`,
    start: (runtime) => start([...forwardFlags(runtime), ...reviewFlags(runtime)], runtime),
  }
}

export const goPeers = (): readonly (Peer | Absent)[] => {
  const version = findGo()
  if (version === undefined) return [goPeer()]
  return [
    goPeer(),
    {
      name: 'go-unauthenticated',
      about: `httputil.ReverseProxy of ${version}, asks nobody`,
      sections: ['handshakes'],
      asksNobody: true,
      start: (runtime) => start(forwardFlags(runtime), runtime),
    },
  ]
}

/** Answers 200 to a request with a good token and 401 to any other, for a proxy that asks before it forwards. */
export const startAuthEndpoint = async (runtime: Runtime): Promise<RunningPeer> =>
  start(reviewFlags(runtime), { ...runtime, tls: undefined })

const forwardFlags = ({ upstream }: Runtime): readonly string[] => [`-upstream=http://${upstream}`]

const reviewFlags = ({ cluster }: Runtime): readonly string[] => [
  `-api-server=${cluster.url}`,
  `-ca-file=${cluster.caFile}`,
  `-token-file=${cluster.tokenFile}`,
]

const start = async (
  flags: readonly string[],
  { tls }: Pick<Runtime, 'tls'>,
): Promise<RunningPeer> => {
  const tlsFlags =
    tls === undefined ? [] : [`-tls-cert-file=${tls.certFile}`, `-tls-key-file=${tls.keyFile}`]
  const child = startChild([buildGo('peers/go-reverse-proxy'), ...flags, ...tlsFlags])
  return {
    address: await child.nextLine(),
    pids: () => processTree(child.pid),
    stop: child.stop,
  }
}
