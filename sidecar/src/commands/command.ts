/** What the commands share: their context, exit codes, and the flags that name a configuration. */

import { parseArgs } from 'node:util'
import { ConfigError } from '../config/config-error.ts'
import type { Clock } from '../lib/clock.ts'
import type { ReadFile } from '../config/files.ts'
import type { Interfaces } from '../lib/own-addresses.ts'
import type { LoadOptions } from '../config/load.ts'
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

type Output = { readonly write: (text: string) => unknown }

/** Everything a command may use. `argv` is what follows the command's name. */
export type CommandContext = {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly stdout: Output
  readonly stderr: Output
  readonly readFile: ReadFile
  readonly clock: Clock
  readonly interfaces: () => Interfaces
  /** Caught for `serve` and `connect`; the other commands keep the system's default. */
  readonly signals?: Signals | undefined
}

/** The command line is wrong; the message says why, and the usage is printed below it. */
class UsageError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'UsageError'
  }
}

/**
 * `--config FILE` and `--set path=value`, as every command that loads a configuration takes them.
 */
export function parseConfigArguments(context: CommandContext): LoadOptions {
  const { config, set } = parseStrictly(context.argv)
  return { file: config, env: context.env, flags: set ?? [], readFile: context.readFile }
}

/** Refuses any argument. */
export function refuseArguments(argv: readonly string[]): void {
  if (argv[0] !== undefined) throw new UsageError('This command takes no arguments.')
}

/** Runs a command's body and turns a user's mistake into a message and an exit code. */
export async function runCommand<Code extends number | undefined>(
  context: CommandContext,
  usage: string,
  body: () => Code | Promise<Code>,
): Promise<Code | number> {
  try {
    return await body()
  } catch (error) {
    return explainMistake(context, usage, error)
  }
}

function explainMistake(context: CommandContext, usage: string, error: unknown): number {
  if (error instanceof UsageError) {
    context.stderr.write(`${error.message}\nUsage: ${usage}\n`)
    return EXIT.usage
  }
  if (error instanceof ConfigError) {
    context.stderr.write(`${error}\n`)
    return EXIT.config
  }
  throw error
}

type OptionTypes = Readonly<Record<string, { readonly type: 'string' | 'boolean' }>>

/** The options of a command that has its own; anything else on its command line is a mistake. */
export const parseOptions = (
  argv: readonly string[],
  options: OptionTypes,
): Record<string, string | boolean | undefined> =>
  orMistake(
    () =>
      parseArgs({
        args: [...argv],
        options: Object.fromEntries(
          Object.entries(options).map(([name, { type }]) => [name, { type }] as const),
        ),
        strict: true,
        allowPositionals: false,
      }).values,
  )

const parseStrictly = (argv: readonly string[]) =>
  orMistake(
    () =>
      parseArgs({
        args: [...argv],
        options: { config: { type: 'string' }, set: { type: 'string', multiple: true } },
        strict: true,
        allowPositionals: false,
      }).values,
  )

function orMistake<T>(parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    // parseArgs throws a TypeError when the arguments are wrong.
    if (!(error instanceof TypeError)) throw error
    throw new UsageError(error.message)
  }
}
