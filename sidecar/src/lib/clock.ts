/** The one way the sidecar reads time and waits, so that tests can hold the clock. */

export type Clock = {
  /** Wall time in milliseconds since the epoch: for `exp`, `nbf` and timestamps. */
  readonly now: () => number
  /** Milliseconds that never jump: for TTLs, durations and latencies. */
  readonly monotonic: () => number
  /** Runs `run` once after `ms` milliseconds unless the returned function is called first. */
  readonly after: (ms: number, run: () => void) => () => void
}

/** The machine's own clock. Its waits do not keep the process alive. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms)
    timer.unref()
    return () => clearTimeout(timer)
  },
}
