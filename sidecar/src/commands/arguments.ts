/** Command lines: the options of a command, and a true message for each mistake in them. */

import { parseArgs } from 'node:util'
import { nearest } from '../config/nearest.ts'

type Option = {
  readonly type: 'string' | 'boolean'
  readonly short?: string
  /** What stands for the value in the help. */
  readonly value?: string
  readonly default?: string
  /** It may be given several times. */
  readonly multiple?: true
  readonly description: string
}
export type Options = Readonly<Record<string, Option>>

/** What a command line gives to each option. */
type Given = Readonly<Record<string, string | boolean | readonly string[] | undefined>>

/** The command line is wrong; the message says why, and the usage is printed below it. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'UsageError'
  }
}

/** Every command has these. */
export const COMMON_OPTIONS = {
  help: { type: 'boolean', short: 'h', description: 'Print this help.' },
  version: { type: 'boolean', short: 'v', description: 'Print the version.' },
} as const satisfies Options

/** Where the configuration is if nobody says otherwise: the image's command names this file, too. */
export const DEFAULT_CONFIG_FILE = '/etc/auth-sidecar/config.yaml'

/** Every command that loads a configuration has these. */
export const CONFIG_OPTIONS = {
  config: {
    type: 'string',
    value: 'FILE',
    default: DEFAULT_CONFIG_FILE,
    description: 'The configuration file, in YAML or JSON.',
  },
  set: {
    type: 'string',
    value: 'PATH=VALUE',
    multiple: true,
    description:
      'Sets one option, over the file and the environment. The last one of a path counts.',
  },
} as const satisfies Options

/** Options of a longer usage are not listed in it. */
const USAGE_LENGTH_MAX = 100

/** The usage of a command, as a line. */
export function usageOf(command: string, options: Options): string {
  const named = Object.entries(options).map(([name, { value, multiple }]) => {
    const text = value === undefined ? `--${name}` : `--${name} ${value}`
    return ` [${text}]${multiple === true ? '…' : ''}`
  })
  const usage = `Usage: auth-sidecar ${command}`
  const whole = usage + named.join('')
  return `${whole.length > USAGE_LENGTH_MAX ? `${usage} [options]` : whole}\n`
}

/** Whether help or the version is asked for, whatever else the command line holds. */
export function readWish(
  argv: readonly string[],
  options: Options,
): keyof typeof COMMON_OPTIONS | undefined {
  for (const token of tokensOf(argv, options)) {
    if (token.kind === 'option' && (token.name === 'help' || token.name === 'version')) {
      return token.name
    }
  }
  return undefined
}

/** Throws a `UsageError` at the first thing on the command line that is not as `options` say. */
export function readArguments<Table extends Options>(
  argv: readonly string[],
  options: Table,
): Given & { readonly [Name in keyof Table]?: Given[string] } {
  const given: Record<string, string | boolean | string[]> = {}
  for (const token of tokensOf(argv, options)) {
    if (token.kind !== 'option') throw new UsageError(describeStray(argv[token.index] ?? ''))
    const option = Object.hasOwn(options, token.name) ? options[token.name] : undefined
    if (option === undefined) throw new UsageError(describeUnknown(token.rawName, options))
    const value = valueOf(token, option)
    const before = given[token.name]
    if (option.multiple === true) {
      given[token.name] = [...(Array.isArray(before) ? before : []), String(value)]
    } else if (before === undefined) given[token.name] = value
    else throw new UsageError(`The option ${token.rawName} is given twice.`)
  }
  return given
}

const tokensOf = (argv: readonly string[], options: Options) =>
  parseArgs({
    args: [...argv],
    options: Object.fromEntries(
      Object.entries({ ...options, ...COMMON_OPTIONS }).map(([name, { type, short }]) => [
        name,
        short === undefined ? { type } : { type, short },
      ]),
    ),
    strict: false,
    allowPositionals: true,
    tokens: true,
  }).tokens

type OptionToken = Extract<ReturnType<typeof tokensOf>[number], { kind: 'option' }>

function valueOf({ rawName, value, inlineValue }: OptionToken, option: Option): string | boolean {
  if (option.type === 'boolean') {
    if (value === undefined) return true
    throw new UsageError(`The option ${rawName} takes no value.`)
  }
  // `--config --set …` would otherwise look for a file of that name.
  if (value === undefined || (value.startsWith('-') && !inlineValue)) {
    throw new UsageError(`The option ${rawName} needs a value: ${rawName}=${option.value}.`)
  }
  return value
}

function describeUnknown(rawName: string, options: Options): string {
  const known = Object.keys({ ...options, ...COMMON_OPTIONS })
  const near = nearest(rawName.replace(/^-+/, ''), known)
  return `Unknown option ${JSON.stringify(rawName)}.${near === undefined ? '' : ` Did you mean --${near}?`}`
}

const describeStray = (text: string): string =>
  `Unexpected argument ${JSON.stringify(text)}: values belong to an option, such as --config FILE.`
