/** The sidecar as a separate process, known only by what it writes and how it ends. */

import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

type LogRecord = Readonly<Record<string, unknown>>
export type Exit = { readonly code: number | null; readonly signal: NodeJS.Signals | null }
export type SidecarProcess = ReturnType<typeof startSidecarProcess>

const MAIN = fileURLToPath(import.meta.resolve('@openclaw-k8s/auth-sidecar/main.ts'))
/**
 * Half of a start from the sources is stripping types and compiling, which is the same for every
 * process. A bundle is started as it ships: it is what gets measured.
 */
const CACHE = {
  NODE_COMPILE_CACHE: fileURLToPath(new URL('../../.cache/compile', import.meta.url)),
}
const LINES_MAX = 10_000
/** Any end of this process, even a kill, closes the child's stdin, and the child must end too. */
const END_WITH_PARENT = `data:text/javascript,${encodeURIComponent(
  "process.stdin.on('end', () => process.kill(process.pid, 'SIGKILL')).resume().unref()",
)}`

export type SidecarProcessOptions = {
  readonly env?: Readonly<Record<string, string>>
  /** Keeps a terminal's Ctrl-C from the process, so that who started it can end it in order. */
  readonly isDetached?: boolean
  /** Descriptors to write to instead of pipes that are read here. */
  readonly stdout?: number | undefined
  readonly stderr?: number | undefined
  /** What to run in place of the checkout's own `main.ts`, such as a bundle of it. */
  readonly main?: string
  /** The most files it may have open, sockets included. */
  readonly openFilesMax?: number
  /** A program, and its first arguments, that runs it. */
  readonly runner?: readonly string[]
}

/** Starts `auth-sidecar` with these arguments and with no environment of ours but the PATH and a cache. */
export const startSidecarProcess = (
  args: readonly string[],
  {
    env = {},
    isDetached = false,
    main = MAIN,
    openFilesMax,
    runner = [],
    ...output
  }: SidecarProcessOptions = {},
) => {
  const node = [process.execPath, '--import', END_WITH_PARENT, main, ...args]
  const limit = ['/bin/sh', '-c', 'ulimit -n "$0" && exec "$@"', String(openFilesMax)]
  const limited = openFilesMax === undefined ? node : [...limit, ...node]
  const [command = '', ...rest] = [...runner, ...limited]
  const child = spawn(command, rest, {
    stdio: ['pipe', output.stdout ?? 'pipe', output.stderr ?? 'pipe'],
    detached: isDetached,
    env: { PATH: process.env['PATH'] ?? '', ...(main === MAIN ? CACHE : {}), ...env },
  })
  child.stdin?.on('error', () => {})
  const kill = () => void child.kill('SIGKILL')
  process.once('exit', kill)

  const exited = new Promise<Exit>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      process.off('exit', kill)
      resolve({ code, signal })
    })
  })
  const stdout = new Lines(child.stdout, exited)
  const stderr = new Lines(child.stderr, exited)

  return {
    pid: child.pid ?? 0,
    stdout,
    stderr,
    exited,
    /** Leaves like `head`: nobody reads standard output any more. */
    abandonStdout: () => void child.stdout?.destroy(),
    /** The addresses of its ports, as its log tells them. */
    listening: async (): Promise<{ readonly workers: string; readonly admin: string }> => {
      const { workers, admin } = await stderr.wait(({ msg }) => msg === 'listening')
      return { workers: String(workers), admin: String(admin) }
    },
    signal: (name: NodeJS.Signals) => child.kill(name),
  }
}

/** The lines of a stream, and a wait for the first JSON one that fits. */
class Lines {
  readonly all: string[] = []
  readonly #exited: Promise<Exit>
  readonly #waiting = new Set<(record: LogRecord) => void>()

  constructor(input: NodeJS.ReadableStream | null, exited: Promise<Exit>) {
    this.#exited = exited
    if (input === null) return
    createInterface({ input }).on('line', (line) => {
      if (this.all.push(line) > LINES_MAX) this.all.shift()
      const record = parse(line)
      if (record !== undefined) for (const notice of this.#waiting) notice(record)
    })
  }

  get text(): string {
    return this.all.map((line) => `${line}\n`).join('')
  }

  get records(): readonly LogRecord[] {
    return this.all.map(parse).filter((record) => record !== undefined)
  }

  /** Resolves with the first record that fits; rejects when the process ends without one. */
  async wait(fits: (record: LogRecord) => boolean): Promise<LogRecord> {
    const { promise, resolve, reject } = Promise.withResolvers<LogRecord>()
    const notice = (record: LogRecord) => {
      if (fits(record)) resolve(record)
    }
    this.#waiting.add(notice)
    for (const record of this.records) notice(record)
    void this.#exited
      .then(({ code, signal }) =>
        reject(new Error(`the sidecar ended (${signal ?? code}) before it wrote that`)),
      )
      .catch(reject)
    try {
      return await promise
    } finally {
      this.#waiting.delete(notice)
    }
  }
}

const parse = (line: string): LogRecord | undefined => {
  try {
    return JSON.parse(line) as LogRecord
  } catch {
    return undefined
  }
}
