/** The life of an admission as one pure state machine: pending, admitted, closing, gone. */

export type State = 'pending' | 'admitted' | 'closing' | 'gone'

/**
 * `admit`: the line is at its end and asks to let the worker in. `revoke`: the right to be here
 * ended. `finish`: the sockets are gone, or the admission was given up.
 */
export type LifecycleEvent = 'admit' | 'revoke' | 'finish'

/**
 * What the caller must do: `release` the worker into its stream, `refuse` it instead, `abort` the
 * admission under way, `close` the stream, `forget` the entry.
 */
export type Effect = 'release' | 'refuse' | 'abort' | 'close' | 'forget' | 'none'

type Step = readonly [next: State, effect: Effect]

/**
 * Architecture invariant: no row leads from `closing` or `gone` to `release`. Whatever the order
 * of events, an admission that was revoked is never let in, and a stream that was revoked is closed.
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

/** The state after `event`, and what to do about it. */
export const step = (state: State, event: LifecycleEvent): Step => TABLE[state][event]
