/** Who takes part: the sidecar, the checkouts it is compared with, and every peer this machine has or can build. */

import { nodeRelay } from '../node-relay/peer.ts'
import { isOfPeers, type Options } from '../options.ts'
import { goPeer, goPeers } from './go.ts'
import { haproxyPeers } from './haproxy.ts'
import { kubeRbacProxy } from './kube-rbac-proxy.ts'
import { nginxPeers } from './nginx.ts'
import { oauth2Proxy } from './oauth2-proxy.ts'
import type { Absent, Peer } from './peer.ts'
import { alsoSidecar, sidecar } from './sidecar.ts'

/** Built when wanted, which takes minutes the first time. */
const PRODUCTS: Readonly<Record<string, () => Promise<Peer | Absent>>> = {
  'kube-rbac-proxy': kubeRbacProxy,
  'oauth2-proxy': oauth2Proxy,
}

export const choosePeers = async (options: Options) => {
  const { peers: wanted, also } = options
  const isWanted = (name: string): boolean => wanted.length === 0 || wanted.includes(name)
  const known = isOfPeers(options)
    ? [sidecar(), goPeer(), ...(await buildProducts(isWanted))]
    : [sidecar(), ...goPeers(), ...nginxPeers(), ...haproxyPeers(), nodeRelay]
  const unknown = wanted.find((name) => !known.some((each) => each.name === name))
  if (unknown !== undefined) throw new Error(`there is no peer ${unknown} here`)
  const chosen = known.filter(({ name }) => isWanted(name))
  return {
    peers: [...chosen.filter(isPresent), ...also.map(alsoSidecar)],
    absent: chosen.filter((each): each is Absent => !isPresent(each)),
  }
}

const buildProducts = async (
  isWanted: (name: string) => boolean,
): Promise<readonly (Peer | Absent)[]> => {
  const built: (Peer | Absent)[] = []
  for (const [name, build] of Object.entries(PRODUCTS)) {
    if (isWanted(name)) built.push(await build())
  }
  return built
}

const isPresent = (each: Peer | Absent): each is Peer => 'start' in each
