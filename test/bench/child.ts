/** Child processes that live no longer than the measurement: started, read line by line, ended. */

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'

export type Child = {
  readonly pid: number
  /** The next line of the standard output; rejects when the process has ended. */
  readonly nextLine: () => Promise<string>
  readonly writeLine: (line: string) => void
  readonly stop: () => Promise<void>
}

export type ChildOptions = {
  readonly env?: Readonly<Record<string, string>>
  /** A file for the stream whose lines are not read. */
  readonly logFile?: string
  /** Which stream `nextLine` reads. Default: the standard output. */
  readonly lines?: 'stdout' | 'stderr'
  readonly stopSignal?: NodeJS.Signals
}

export const startChild = (
  [command = '', ...args]: readonly string[],
  { env = {}, logFile, lines = 'stdout', stopSignal = 'SIGTERM' }: ChildOptions = {},
): Child => {
  const log = logFile === undefined ? 'inherit' : openSync(logFile, 'a')
  const child = spawn(command, args, {
    stdio: lines === 'stdout' ? ['pipe', 'pipe', log] : ['pipe', log, 'pipe'],
    env: { PATH: process.env['PATH'] ?? '', ...env },
  })
  if (typeof log === 'number') closeSync(log)
  const kill = () => void child.kill('SIGKILL')
  process.once('exit', kill)
  child.stdin?.on('error', () => {})
  const closed = once(child, 'close').finally(() => process.off('exit', kill))
  closed.catch(() => {})
  const input = lines === 'stdout' ? child.stdout : child.stderr
  if (input === null) throw new Error('no pipe to read')
  return {
    pid: child.pid ?? 0,
    nextLine: lineReader(input, closed, command),
    writeLine: (line) => void child.stdin?.write(`${line}\n`),
    stop: async () => {
      if (hasEnded(child)) return
      child.kill(stopSignal)
      await closed
    },
  }
}

const hasEnded = (child: ChildProcess): boolean =>
  child.exitCode !== null || child.signalCode !== null

const lineReader = (input: NodeJS.ReadableStream, closed: Promise<unknown>, command: string) => {
  const ready: string[] = []
  const waiting: ((line: string) => void)[] = []
  createInterface({ input }).on('line', (line) => {
    const take = waiting.shift()
    if (take === undefined) ready.push(line)
    else take(line)
  })
  return async (): Promise<string> => {
    const line = ready.shift()
    if (line !== undefined) return line
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    waiting.push(resolve)
    closed.then(() => reject(new Error(`${command} has ended`)), reject)
    return promise
  }
}
