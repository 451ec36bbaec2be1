/** The only way the stub reads time and waits; the sidecar's `Clock` fits it. */

export type StubClock = {
  /** Wall time in milliseconds since the epoch. */
  readonly now: () => number
  /** Runs `run` once after `ms` milliseconds unless the returned function is called first. */
  readonly after: (ms: number, run: () => void) => () => void
}

/** The machine's own clock. Its waits do not keep the process alive. */
export const systemClock: StubClock = {
  now: () => Date.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms)
    timer.unref()
    return () => clearTimeout(timer)
  },
}
