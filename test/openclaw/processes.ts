/** Processes of the suite: started with a private environment, watched, bounded, ended by id. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export type ProcessOptions = {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  /** The whole environment besides PATH: nothing else is inherited. */
  readonly env?: Readonly<Record<string, string>>
  /** User and group to run as; default: the suite's own. */
  readonly uid?: number | undefined
}

export type Exit = { readonly code: number | null; readonly signal: NodeJS.Signals | null }
export type Running = ReturnType<typeof startProcess>

/** Enough for the audit lines of the whole suite. */
const LINES_MAX = 4000
const LINES_SHOWN = 30
const END_GRACE_MS = 15_000

export const startProcess = ({ name, command, args, env = {}, uid }: ProcessOptions) => {
  const child = spawn(command, args, {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A separate process group: the product starts others, which end with it.
    detached: true,
    ...(uid === undefined ? {} : { uid, gid: uid }),
  })
  const signalGroup = (signal: NodeJS.Signals): void => {
    if (child.pid === undefined) return
    try {
      process.kill(-child.pid, signal)
    } catch {
      // Nobody is left in it.
    }
  }
  const killGroup = (): void => signalGroup('SIGKILL')
  const lines: string[] = []
  const errors: string[] = []
  const keep = (kept: string[]) => (line: string) => {
    kept.push(line)
    if (kept.length > LINES_MAX) kept.shift()
  }
  createInterface(child.stdout).on('line', keep(lines))
  createInterface(child.stderr).on('line', keep(errors))
  // Not `close`: what the product leaves running for a moment still holds the pipes.
  const exited = once(child, 'exit').then(([code, signal]): Exit => ({ code, signal }))
  const closed = once(child, 'close').then(() => exited)

  const tell = (): string => [...lines, ...errors].slice(-LINES_SHOWN).join('\n')
  return {
    name,
    pid: child.pid,
    exited,
    /** As `exited`, and all it said has been read. */
    closed,
    /** Standard output and standard error, oldest first, the newest few thousand lines of each. */
    lines: lines as readonly string[],
    errors: errors as readonly string[],
    tell,
    /** To the process and all that it has started. */
    signal: signalGroup,
    hasExited: (): boolean => child.exitCode !== null || child.signalCode !== null,
    /** Signals the process and waits for its end; what is then left, or takes too long, is killed. */
    end: async (signal: NodeJS.Signals = 'SIGTERM', graceMs = END_GRACE_MS): Promise<Exit> => {
      if (signal === 'SIGKILL') killGroup()
      else child.kill(signal)
      const timer = setTimeout(killGroup, graceMs)
      const exit = await exited
      clearTimeout(timer)
      killGroup()
      return exit
    },
  }
}

/** Runs to the end and gives standard output; anything but exit 0 within the time throws. */
export const runProcess = async (options: ProcessOptions, limitMs: number): Promise<string> => {
  const { code, output, told } = await runToEnd(options, limitMs)
  if (code !== 0) throw new Error(`${options.name} ended ${code}:\n${told}`)
  return output
}

/** Runs to its end, whatever its exit code is, or until it is killed after the time. */
export const runToEnd = async (options: ProcessOptions, limitMs: number) => {
  const running = startProcess(options)
  const timer = setTimeout(() => void running.end('SIGKILL'), limitMs)
  const { code, signal } = await running.closed
  clearTimeout(timer)
  return { code: code ?? signal, output: running.lines.join('\n'), told: running.tell() }
}
