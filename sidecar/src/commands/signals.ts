/** What signals do to `serve`, from its first moment on. */

/** These drain and end the sidecar. close-with-grace listens for them once the sidecar runs. */
const ENDING = ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const

/**
 * What close-with-grace would also listen for. SIGHUP and SIGUSR2 are ours. The others mean that
 * the process is broken: a listener would keep it alive, and keep V8 from its own use of SIGSEGV.
 */
export const NOT_ENDING = [
  'SIGHUP',
  'SIGUSR2',
  'SIGILL',
  'SIGTRAP',
  'SIGABRT',
  'SIGBUS',
  'SIGFPE',
  'SIGSEGV',
] as const satisfies NodeJS.Signals[]

export type Signals = {
  /**
   * The sidecar now handles the signals that end it. Call this when its listeners are there: one that has
   * come a moment ago waits in Node, and would be lost with the last listener.
   */
  readonly releaseEnding: () => void
  /** SIGHUP runs this from now on; runs it now if SIGHUP came earlier. */
  readonly onReload: (reload: () => void) => void
}

type SignalTarget = Pick<NodeJS.Process, 'on' | 'off' | 'exit'>

/** Call this before anything slow: a signal without a listener ends the process. */
export function catchSignals(target: SignalTarget): Signals {
  let isReloadAsked = false
  let reload = () => {
    isReloadAsked = true
  }
  target.on('SIGHUP', () => reload())
  // Without a listener SIGUSR1 opens Node's debugger, and SIGUSR2 ends the process.
  for (const name of ['SIGUSR1', 'SIGUSR2'] as const) target.on(name, () => {})
  // There is nothing to drain yet. Without this, PID 1 of a container would not end.
  const end = () => target.exit(0)
  for (const name of ENDING) target.on(name, end)
  return {
    releaseEnding() {
      for (const name of ENDING) target.off(name, end)
    },
    onReload(run) {
      reload = run
      if (isReloadAsked) run()
    },
  }
}
