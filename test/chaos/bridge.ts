/** Joins two sockets: what one receives the other sends, and neither outlives the other. */

import type { Socket } from 'node:net'

export function joinSockets(near: Socket, far: Socket): void {
  for (const [from, to] of [
    [near, far],
    [far, near],
  ] as const) {
    from.on('error', () => to.destroy())
    from.on('close', () => to.destroy())
    from.pipe(to)
  }
}
