/** Joins a worker's socket and one to the gateway's sidecar: bytes both ways, nothing else. */

import type { Socket } from 'node:net'
import type { Clock } from '../lib/clock.ts'
import { ignoreError } from '../lib/peer-errors.ts'

export type RelayOptions = {
  readonly worker: Socket
  readonly gateway: Socket
  readonly clock: Clock
}

export type Relay = {
  /** Ends both ways: what was read before is still written. */
  readonly end: () => void
  /** Resolves when both sockets are gone. */
  readonly closed: Promise<void>
}

/** How long one direction may outlive the other, in milliseconds: a close handshake's longest time. */
const HALF_OPEN_MS_MAX = 30_000

/**
 * Each direction ends by itself, after its last byte. When a socket breaks, the other one ends after
 * the bytes that came before. Frames and messages are for the sidecar at the other end.
 */
export function relay({ worker, gateway, clock }: RelayOptions): Relay {
  const { promise: closed, resolve } = Promise.withResolvers<void>()
  let cancel: (() => void) | undefined
  let open = 2
  const startDeadline = () => {
    cancel ??= clock.after(HALF_OPEN_MS_MAX, () => {
      worker.destroy()
      gateway.destroy()
    })
  }
  const onGone = (other: Socket) => {
    open -= 1
    if (open === 0) {
      cancel?.()
      return resolve()
    }
    startDeadline()
    other.destroySoon()
  }
  for (const [socket, other] of [
    [worker, gateway],
    [gateway, worker],
  ] as const) {
    socket.on('error', ignoreError)
    socket.once('end', startDeadline)
    // The event of a socket that closed a moment ago was missed.
    if (socket.closed) queueMicrotask(() => onGone(other))
    else socket.once('close', () => onGone(other))
    socket.pipe(other)
  }
  return {
    closed,
    end() {
      startDeadline()
      worker.destroySoon()
      gateway.destroySoon()
    },
  }
}
