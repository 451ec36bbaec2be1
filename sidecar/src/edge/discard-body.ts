/** Reads the body of a request that will be refused: its sender can crash when it is answered before. */

import type { IncomingMessage } from 'node:http'
import type { Clock } from '../lib/clock.ts'

export type DiscardOptions = {
  readonly clock: Clock
  /** Ends the reading. */
  readonly signal: AbortSignal
}

/** The longest reading, in milliseconds: as long as a transfer. */
const READ_MS_MAX = 600_000
/** How often a body has to have grown, in milliseconds. */
const IDLE_MS = 20_000

/**
 * Resolves when the body is read, or its time is up, or its sender is gone. Its announced length
 * bounds it, and the limit on hosted streams bounds how many are read at once.
 */
export async function discardBody(
  request: IncomingMessage,
  { clock, signal }: DiscardOptions,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const end = () => resolve(undefined)
  let isGrowing = true
  let cancelIdle = () => {}
  const check = () => {
    if (!isGrowing) return end()
    isGrowing = false
    cancelIdle = clock.after(IDLE_MS, check)
  }
  check()
  const cancelDeadline = clock.after(READ_MS_MAX, end)
  signal.addEventListener('abort', end, { once: true })
  if (signal.aborted) end()
  request.on('data', () => {
    isGrowing = true
  })
  request.once('end', end).once('close', end)
  // A body that breaks off while the other half is open ends nothing else.
  request.socket.once('end', end)
  request.resume()
  await promise
  cancelIdle()
  cancelDeadline()
  signal.removeEventListener('abort', end)
  request.removeAllListeners('data').off('end', end).off('close', end)
  request.socket.off('end', end)
}
