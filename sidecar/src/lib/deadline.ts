/** Deadlines on the injected clock, and waits that an abort cuts short. */

import { asError } from './errors.ts'
import type { Clock } from './clock.ts'

/** The deadline passed. Where that is a fault, the code that set the deadline says which one. */
export class DeadlineError extends Error {
  constructor(ms: number) {
    super(`no answer within ${ms} ms`)
    this.name = 'DeadlineError'
  }
}

/** Runs `work` with a signal that aborts after `ms` milliseconds, or when `parent` does. */
export async function withDeadline<T>(
  clock: Clock,
  ms: number,
  work: (signal: AbortSignal) => Promise<T>,
  parent?: AbortSignal,
): Promise<T> {
  const controller = new AbortController()
  const { signal } = controller
  const cancel = clock.after(ms, () => controller.abort(new DeadlineError(ms)))
  // By hand: the weak references of `AbortSignal.any` cost more than the wait itself.
  const follow = (): void => controller.abort(parent?.reason)
  if (parent?.aborted === true) follow()
  parent?.addEventListener('abort', follow, { once: true })
  try {
    return await raceAbort(work(signal), signal)
  } finally {
    cancel()
    parent?.removeEventListener('abort', follow)
  }
}

/** Waits; rejects with the signal's reason as soon as it aborts. */
export async function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const cancel = clock.after(ms, () => resolve(undefined))
  await raceAbort(promise, signal).finally(cancel)
}

/** Settles with `promise`, or rejects with the signal's reason as soon as it aborts. */
export function raceAbort<T>(promise: Promise<T> | T, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(asError(signal.reason))
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    Promise.resolve(promise)
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', onAbort))
  })
}
