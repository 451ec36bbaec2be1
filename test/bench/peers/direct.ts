/** No proxy: the client's connection goes straight to the echo server. */

import type { Peer } from './peer.ts'

export const direct: Peer = {
  name: 'direct',
  about: 'no proxy',
  start: async ({ upstream }) => ({ address: upstream, pids: () => [], stop: async () => {} }),
}
