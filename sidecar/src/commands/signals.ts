/** What signals do to `serve`, from its first moment on. */

/** These drain and end the sidecar; close-with-grace listens for them once there is one. */
const ENDING = ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const

/**
 * What close-with-grace would listen for as well. SIGHUP and SIGUSR2 are ours. The others say that
 * the process is broken: a listener keeps it from ending, and V8 from its own use of SIGSEGV.
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
  /** The sidecar now handles the signals that end it. */
  readonly releaseEnding: () => void
  /** SIGHUP runs this from now on, and now if it came before. */
  readonly onReload: (reload: () => void) => void
}

type SignalTarget = Pick<NodeJS.Process, 'on' | 'off' | 'exit'>

/** To be called before anything slow: a signal without a listener ends the process. */
export function catchSignals(target: SignalTarget): Signals {
  let isReloadAsked = false
  let reload = () => {
    isReloadAsked = true
  }
  target.on('SIGHUP', () => reload())
  // Node opens its debugger at SIGUSR1 when nobody listens; SIGUSR2 would end the process.
  for (const name of ['SIGUSR1', 'SIGUSR2'] as const) target.on(name, () => {})
  // There is nothing to drain yet. The first process of a container would not end without this.
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
