/** Who takes part: the sidecar, the checkouts it is compared with, and every peer this machine has. */

import type { Options } from '../options.ts'
import { goPeers } from './go.ts'
import { haproxyPeers } from './haproxy.ts'
import { nginxPeers } from './nginx.ts'
import type { Absent, Peer } from './peer.ts'
import { alsoSidecar, sidecar } from './sidecar.ts'

export const choosePeers = ({ peers: wanted, also }: Options) => {
  const known = [sidecar(), ...goPeers(), ...nginxPeers(), ...haproxyPeers()]
  const unknown = wanted.find((name) => !known.some((each) => each.name === name))
  if (unknown !== undefined) throw new Error(`there is no peer ${unknown} here`)
  const chosen = known.filter(({ name }) => wanted.length === 0 || wanted.includes(name))
  return {
    peers: [...chosen.filter(isPresent), ...also.map(alsoSidecar)],
    absent: chosen.filter((each): each is Absent => !isPresent(each)),
  }
}

const isPresent = (each: Peer | Absent): each is Peer => 'start' in each
