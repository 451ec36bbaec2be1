/** The life of an admission as one pure state machine: pending, admitted, closing, gone. */

export type State = 'pending' | 'admitted' | 'closing' | 'gone'

/**
 * `admit`: every check has passed and the worker may enter. `revoke`: its right to be here ended.
 * `finish`: the sockets are gone, or the admission was abandoned.
 */
export type LifecycleEvent = 'admit' | 'revoke' | 'finish'

/**
 * What the caller must do: `release` the worker into its stream, `refuse` it instead, `abort` the
 * pending admission, `close` the stream, `forget` the entry.
 */
export type Effect = 'release' | 'refuse' | 'abort' | 'close' | 'forget' | 'none'

type Step = readonly [next: State, effect: Effect]

/**
 * Architecture invariant: no row leads from `closing` or `gone` to `release`. Whatever the order of
 * events, a revoked admission never lets its worker in, and a revoked stream is closed.
 */
const TABLE: { readonly [S in State]: { readonly [E in LifecycleEvent]: Step } } = {
  pending: {
    admit: ['admitted', 'release'],
    revoke: ['closing', 'abort'],
    finish: ['gone', 'forget'],
  },
  admitted: {
    admit: ['admitted', 'refuse'],
    revoke: ['closing', 'close'],
    finish: ['gone', 'forget'],
  },
  closing: {
    admit: ['closing', 'refuse'],
    revoke: ['closing', 'none'],
    finish: ['gone', 'forget'],
  },
  gone: {
    admit: ['gone', 'refuse'],
    revoke: ['gone', 'none'],
    finish: ['gone', 'none'],
  },
}

/** The state after `event`, and what the caller must do. */
export const step = (state: State, event: LifecycleEvent): Step => TABLE[state][event]
