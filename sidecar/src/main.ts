/** The command line: picks the command and turns its result into the exit code. */

import { networkInterfaces } from 'node:os'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { systemClock } from './lib/clock.ts'
import { EXIT, type CommandContext } from './commands/command.ts'
import { catchSignals } from './commands/signals.ts'
import { openStandard, StandardStream } from './commands/standard-stream.ts'
import { readFileBounded } from './config/files.ts'

type Run = (context: CommandContext) => number | undefined | Promise<number | undefined>

/**
 * Each command loads only what it needs: `drain` and `doctor` share the container's memory with
 * `serve`.
 */
const COMMANDS: Readonly<Record<string, () => Promise<{ readonly run: Run }>>> = {
  serve: () => import('./commands/serve.ts'),
  connect: () => import('./commands/connect.ts'),
  drain: () => import('./commands/drain.ts'),
  doctor: () => import('./commands/doctor.ts'),
  'check-config': () => import('./commands/check-config.ts'),
  'print-config': () => import('./commands/print-config.ts'),
  schema: () => import('./commands/schema.ts'),
  version: () => import('./commands/version.ts'),
}

/** How long the process may live on after its command has ended, in milliseconds. */
const LINGER_MS = 500
/** How long a command that could not start waits for its output to be read, in milliseconds. */
const START_OUTPUT_MS_MAX = 4000

const HELP = `Usage: auth-sidecar <command> [--config FILE] [--set path=value]…

  serve         run the sidecar
  connect       run beside a worker in its pod, and show the sidecar the pod's current token
  drain         disconnect the workers of the running sidecar, and wait until they are gone
  doctor        check everything the running sidecar needs, and print remedies
  check-config  check the configuration, and print every problem
  print-config  print the configuration with defaults filled in and secrets masked
  schema        print the JSON Schema of the configuration
  version       print the version
`

// No top-level `await`: the bundle is CommonJS, which does not have it.
void main()

async function main(): Promise<void> {
  const [name = '', ...argv] = process.argv.slice(2)
  const isLasting = name === 'serve' || (name === 'connect' && !argv.includes('--check'))
  const signals = isLasting ? catchSignals(process) : undefined
  const stdout = new StandardStream(() => openStandard(1))
  const stderr = new StandardStream(() => openStandard(2))
  const code = await runNamed(name, {
    argv,
    env: process.env,
    stdout,
    stderr,
    readFile: readFileBounded,
    clock: systemClock,
    interfaces: networkInterfaces,
    signals,
  })
  if (code === undefined) return giveBackStart()
  process.exitCode = code
  // The process must end, even if nobody reads its output.
  if (isLasting) exitIn(START_OUTPUT_MS_MAX)
  const failure = await stdout.finish()
  if (failure !== undefined) {
    stderr.write(`Standard output could not be written: ${failure.message}\n`)
    if (code === EXIT.ok) process.exitCode = EXIT.output
  }
  await stderr.finish()
  // A pending DNS lookup, for example, must not keep the process alive: nobody waits for it.
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
  stderr.write(name === '' ? HELP : `Unknown command ${JSON.stringify(name)}.\n${HELP}`)
  return EXIT.usage
}

/**
 * The only WebAssembly here is undici's HTTP parser. V8 starts to optimize it at its first answer,
 * which takes 20 ms and keeps 4 MiB of the compiler resident, to save 3 µs per request to the API
 * server. Call this after Node's modules are loaded: V8 rejects Node's cached code if flags differ.
 */
function leaveWebAssemblyUnoptimized(): void {
  // With only one of these flags, V8 still optimizes.
  setFlagsFromString('--no-wasm-tier-up')
  setFlagsFromString('--no-wasm-dynamic-tiering')
}

/**
 * Returns 9 MiB that only the start needed, and that V8 would keep until the next collection. It
 * takes 30 ms. `gc` comes from `--expose-gc` (Node, command-line options); as an argument of Node it
 * would cost 20 ms per start, for the reason above.
 */
function giveBackStart(): void {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('globalThis.gc') as typeof globalThis.gc
  // Only this flavor shrinks the young generation.
  gc?.({ type: 'major', flavor: 'last-resort' })
}
