/** The command line: picks the command and turns what it returns into the exit code. */

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { systemClock } from './lib/clock.ts'
import { EXIT, type CommandContext } from './commands/command.ts'
import { catchSignals } from './commands/signals.ts'
import { openStandard, StandardStream } from './commands/standard-stream.ts'
import { readFileBounded } from './config/files.ts'

type Run = (context: CommandContext) => number | undefined | Promise<number | undefined>

/** Each loads no more than it needs: `drain` and `doctor` share the container's memory with `serve`. */
const COMMANDS: Readonly<Record<string, () => Promise<{ readonly run: Run }>>> = {
  serve: () => import('./commands/serve.ts'),
  drain: () => import('./commands/drain.ts'),
  doctor: () => import('./commands/doctor.ts'),
  'check-config': () => import('./commands/check-config.ts'),
  'print-config': () => import('./commands/print-config.ts'),
  schema: () => import('./commands/schema.ts'),
  version: () => import('./commands/version.ts'),
}

/** How long a command that has ended may take to leave, in milliseconds. */
const LINGER_MS = 500
/** How long a `serve` that could not start waits for the readers of its output, in milliseconds. */
const SERVE_OUTPUT_MS_MAX = 4000

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
  const isServe = name === 'serve'
  const signals = isServe ? catchSignals(process) : undefined
  const stdout = new StandardStream(() => openStandard(1))
  const stderr = new StandardStream(() => openStandard(2))
  const code = await runNamed(name, {
    argv,
    env: process.env,
    stdout,
    stderr,
    readFile: readFileBounded,
    clock: systemClock,
    signals,
  })
  if (code === undefined) return giveBackStart()
  process.exitCode = code
  // Whoever started a sidecar must hear of its end even if nobody reads what it says.
  if (isServe) exitIn(SERVE_OUTPUT_MS_MAX)
  const failure = await stdout.finish()
  if (failure !== undefined) {
    stderr.write(`Standard output could not be written: ${failure.message}\n`)
    if (code === EXIT.ok) process.exitCode = EXIT.output
  }
  await stderr.finish()
  // A name that is still being looked up, say, must not hold the process: nobody waits for it.
  exitIn(LINGER_MS)
}

const exitIn = (ms: number): void => void setTimeout(() => process.exit(), ms).unref()

async function runNamed(name: string, context: CommandContext): Promise<number | undefined> {
  const { stdout, stderr } = context
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (load !== undefined) {
    const { run } = await load()
    leaveWebAssemblyUnoptimized()
    return run(context)
  }
  if (name === '--help' || name === 'help') {
    stdout.write(HELP)
    return EXIT.ok
  }
  stderr.write(name === '' ? HELP : `There is no command ${JSON.stringify(name)}.\n${HELP}`)
  return EXIT.usage
}

/**
 * There is one such program here, undici's parser of HTTP. At its first answer V8 begins to optimize it, which
 * takes 20 ms and leaves 4 MiB of the compiler resident, to save 3 µs of a request to the API server. To be called
 * when Node's modules are loaded: under other flags V8 refuses what Node keeps of them compiled.
 */
function leaveWebAssemblyUnoptimized(): void {
  // Either of them alone has it optimized all the same.
  setFlagsFromString('--no-wasm-tier-up')
  setFlagsFromString('--no-wasm-dynamic-tiering')
}

/**
 * What only the start needed, and the young generation it made grow, are 9 MiB that V8 keeps for as long as nothing
 * comes that would have it collect. It takes 30 ms. `gc` is had by `--expose-gc` (Node, command-line options); among
 * Node's arguments that costs 20 ms of each start, for the reason above.
 */
function giveBackStart(): void {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('globalThis.gc') as typeof globalThis.gc
  // No other flavour makes the young generation smaller.
  gc?.({ type: 'major', flavor: 'last-resort' })
}
