/** Joins a worker's socket and one to the gateway's sidecar: bytes both ways, nothing else. */

import { pipeline } from 'node:stream'
import type { Duplex } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import { ignoreError } from '../lib/peer-errors.ts'

export type RelayOptions = {
  readonly worker: Duplex
  readonly gateway: Duplex
  readonly clock: Clock
}

export type Relay = {
  /** Ends both ways in order: what is on its way still arrives. */
  readonly end: () => void
  /** Resolves when both sockets are gone. */
  readonly closed: Promise<void>
}

/** How long one direction may outlive the other, in milliseconds: a close handshake's longest time. */
const HALF_OPEN_MS_MAX = 30_000

/**
 * Each direction ends by itself, after its last byte; a socket that breaks takes the other along.
 * Frames and messages are for the sidecar at the other end.
 */
export function relay({ worker, gateway, clock }: RelayOptions): Relay {
  const { promise: closed, resolve } = Promise.withResolvers<void>()
  let cancel = () => {}
  let open = 2
  const destroy = () => {
    worker.destroy()
    gateway.destroy()
  }
  const onEnded = (error: unknown) => {
    cancel()
    if (error !== undefined && error !== null) destroy()
    else cancel = clock.after(HALF_OPEN_MS_MAX, destroy)
  }
  for (const socket of [worker, gateway]) {
    // A pipeline stops listening when it has ended; a socket may fail later.
    socket.on('error', ignoreError)
    const onGone = () => {
      open -= 1
      if (open > 0) return
      cancel()
      resolve()
    }
    // The event of a socket that closed a moment ago was missed.
    if (socket.closed) queueMicrotask(onGone)
    else socket.once('close', onGone)
  }
  pipeline(worker, gateway, onEnded)
  pipeline(gateway, worker, onEnded)
  return {
    closed,
    end() {
      for (const socket of [worker, gateway]) socket.end()
      onEnded(undefined)
    },
  }
}
