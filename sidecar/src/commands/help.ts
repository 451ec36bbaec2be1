/** The text of `--help`: of the program, and of each command. */

import { COMMON_OPTIONS, CONFIG_OPTIONS, usageOf, type Options } from './arguments.ts'
import { COMMANDS, type Command } from './commands.ts'

const NAME = 'auth-sidecar'
/** Wide enough for the longest command. */
const NAME_WIDTH = 14
const LINE_WIDTH = 80

export function describeProgram(): string {
  const commands = Object.entries(COMMANDS).map(
    ([name, { summary }]) => `  ${name.padEnd(NAME_WIDTH)}${summary}\n`,
  )
  return `Usage: ${NAME} <command> [options]

${commands.join('')}
\`${NAME} <command> --help\` has the options and the exit codes of a command.
Without --config, commands read ${CONFIG_OPTIONS.config.default}.

Example: ${NAME} check-config --config config.yaml
`
}

export function describeCommand(
  name: string,
  { summary, exits }: Command,
  options: Options,
): string {
  const codes = { 0: 'it went well', 64: 'the command line is wrong', ...exits }
  const exitLines = Object.entries(codes).map(
    ([code, meaning]) => `  ${code.padEnd(4)}${meaning}\n`,
  )
  return `${usageOf(name, options)}
${name} ${summary}.

Options:
${describeOptions({ ...options, ...COMMON_OPTIONS })}
Exit codes:
${exitLines.join('')}`
}

function describeOptions(options: Options): string {
  const entries = Object.entries(options).map(([name, option]) => {
    const short = option.short === undefined ? '' : `-${option.short}, `
    const value = option.value === undefined ? '' : ` ${option.value}`
    const fallback = option.default === undefined ? '' : ` Default: ${option.default}`
    const text = wrap(`${option.description.replaceAll('`', '')}${fallback}`, LINE_WIDTH - 6)
    return `  ${short}--${name}${value}\n${text.map((line) => `      ${line}\n`).join('')}`
  })
  return entries.join('')
}

function wrap(text: string, width: number): readonly string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? ''
    if (line === '') lines[lines.length - 1] = word
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`
    else lines.push(word)
  }
  return lines
}
