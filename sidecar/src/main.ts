/** The command line: picks the command and turns what it returns into the exit code. */

import { systemClock } from './clock.ts'
import { run as checkConfig } from './commands/check-config.ts'
import { EXIT, refuseArguments, runCommand, type CommandContext } from './commands/command.ts'
import { run as doctor } from './commands/doctor.ts'
import { run as drain } from './commands/drain.ts'
import { run as printConfig } from './commands/print-config.ts'
import { run as schema } from './commands/schema.ts'
import { run as serve } from './commands/serve.ts'
import { readFileBounded } from './config/files.ts'
import { version } from './version.ts'

type Command = (context: CommandContext) => number | undefined | Promise<number | undefined>

const COMMANDS: Readonly<Record<string, Command>> = {
  serve,
  drain,
  doctor,
  'check-config': checkConfig,
  'print-config': printConfig,
  schema,
  version: (context) =>
    runCommand(context, 'auth-sidecar version', () => {
      refuseArguments(context.argv)
      context.stdout.write(`${version.version}\n`)
      return EXIT.ok
    }),
}

/** How long a command that has ended may take to leave, in milliseconds. */
const LINGER_MS = 500

const HELP = `Usage: auth-sidecar <command> [--config FILE] [--set path=value]…

  serve         run the sidecar
  drain         send the workers of the running sidecar away, and wait until they are gone
  doctor        say whether the running sidecar has all it needs, and how to mend what is not
  check-config  say whether a configuration is good, and what is not
  print-config  show the configuration as it is read, secrets masked
  schema        print the JSON Schema of the configuration
  version       print the version
`

// No `await` at the top: the bundle is CommonJS, which has none.
void main()

async function main(): Promise<void> {
  const [name = '', ...argv] = process.argv.slice(2)
  const { env, stdout, stderr } = process
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (command !== undefined) {
    const surroundings = { env, stdout, stderr, readFile: readFileBounded, clock: systemClock }
    const code = await command({ argv, ...surroundings })
    if (code === undefined) return
    process.exitCode = code
    // A name that is still being looked up, say, must not hold the process: nobody waits for it.
    setTimeout(() => process.exit(), LINGER_MS).unref()
  } else if (name === '--help' || name === 'help') stdout.write(HELP)
  else {
    stderr.write(name === '' ? HELP : `There is no command ${JSON.stringify(name)}.\n${HELP}`)
    process.exitCode = EXIT.usage
  }
}
