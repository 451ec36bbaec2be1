/** What the commands share: their context, exit codes, and the flags that name a configuration. */

import { ConfigError } from '../config/config-error.ts'
import type { Clock } from '../lib/clock.ts'
import type { ReadFile } from '../config/files.ts'
import type { Interfaces } from '../lib/own-addresses.ts'
import type { LoadOptions } from '../config/load.ts'
import {
  CONFIG_OPTIONS,
  DEFAULT_CONFIG_FILE,
  readArguments,
  UsageError,
  usageOf,
  type Options,
} from './arguments.ts'
import type { Signals } from './signals.ts'

/** Exit codes of sysexits.h. */
export const EXIT = {
  ok: 0,
  usage: 64,
  dependency: 69,
  bug: 70,
  output: 74,
  permission: 77,
  config: 78,
} as const

type Output = {
  readonly write: (text: string) => unknown
  /** Nobody reads any more, or it could not be written. */
  readonly isBroken?: boolean
}

/** Everything a command may use. `argv` is what follows the command's name. */
export type CommandContext = {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly stdout: Output
  readonly stderr: Output
  readonly readFile: ReadFile
  readonly clock: Clock
  readonly interfaces: () => Interfaces
  /** The size of stdout's terminal; absent where stdout is none. */
  readonly terminal?: (() => { readonly rows: number; readonly columns: number }) | undefined
  /** Whether colors help: stdout is a terminal, and NO_COLOR is not set. */
  readonly isColored?: boolean
  /** Caught for `serve` and `connect`; the other commands keep the system's default. */
  readonly signals?: Signals | undefined
}

/** How to load the configuration that a command line names; `options` are all of the command's. */
export function readConfigArguments(
  { argv, env, readFile }: CommandContext,
  options: Options = CONFIG_OPTIONS,
): LoadOptions {
  const { config, set } = readArguments(argv, options)
  const flags = Array.isArray(set) ? set : []
  const named = typeof config === 'string' ? { file: config } : { defaultFile: DEFAULT_CONFIG_FILE }
  return { ...named, env, flags, readFile }
}

type CommandLine = { readonly name: string; readonly options: Options }

/** Runs a command's body and turns a user's mistake into a message and an exit code. */
export async function runCommand<Code extends number | undefined>(
  context: CommandContext,
  command: CommandLine,
  body: () => Code | Promise<Code>,
): Promise<Code | number> {
  try {
    return await body()
  } catch (error) {
    return explainMistake(context, command, error)
  }
}

function explainMistake(
  context: CommandContext,
  { name, options }: CommandLine,
  error: unknown,
): number {
  if (error instanceof UsageError) {
    context.stderr.write(`${error.message}\n${usageOf(name, options)}`)
    return EXIT.usage
  }
  if (error instanceof ConfigError) {
    context.stderr.write(`${error}\n`)
    return EXIT.config
  }
  throw error
}
