/** A bare relay on Node beside the sidecar: what of its figures is Node's own. */

import { fileURLToPath } from 'node:url'
import { startChild } from '../child.ts'
import type { Peer } from '../peers/peer.ts'
import { processTree } from '../processes.ts'

const RELAY = fileURLToPath(new URL('relay.ts', import.meta.url))

/** As the sidecar's image has it. */
const NODE_OPTIONS = '--max-semi-space-size=4'

export const nodeRelay: Peer = {
  name: 'node-relay',
  about: `two sockets joined on Node ${process.versions.node}; asks nobody, reads no request`,
  sections: ['echo', 'streams', 'handshakes'],
  asksNobody: true,
  async start({ upstream, tls }) {
    const secure = tls === undefined ? [] : ['--cert', tls.certFile, '--key', tls.keyFile]
    const child = startChild([process.execPath, RELAY, '--upstream', upstream, ...secure], {
      env: { NODE_OPTIONS },
      stopSignal: 'SIGKILL',
    })
    return {
      address: await child.nextLine(),
      pids: () => processTree(child.pid),
      stop: child.stop,
    }
  },
}
