/** The command line: picks the command and turns its result into the exit code. */

import { networkInterfaces } from 'node:os'
import { isatty } from 'node:tty'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { systemClock } from './lib/clock.ts'
import { readWish } from './commands/arguments.ts'
import { EXIT, type CommandContext } from './commands/command.ts'
import { COMMANDS, type Command } from './commands/commands.ts'
import { describeCommand, describeProgram } from './commands/help.ts'
import { nearest } from './config/nearest.ts'
import { version } from './version.ts'
import { catchSignals } from './commands/signals.ts'
import { openStandard, StandardStream } from './commands/standard-stream.ts'
import { readFileBounded } from './config/files.ts'

/** How long the process may live on after its command has ended, in milliseconds. */
const LINGER_MS = 500
/** How long a command that could not start waits for its output to be read, in milliseconds. */
const START_OUTPUT_MS_MAX = 4000

const VERSION = `${version.version}\n`

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
    terminal: isatty(1) ? sizeOfTerminal : undefined,
    isColored: isatty(1) && (process.env['NO_COLOR'] ?? '') === '',
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

const sizeOfTerminal = () => ({ rows: process.stdout.rows, columns: process.stdout.columns })

const exitIn = (ms: number): void => void setTimeout(() => process.exit(), ms).unref()

async function runNamed(name: string, context: CommandContext): Promise<number | undefined> {
  const { argv, stdout } = context
  const command = commandOf(name)
  if (command === undefined) return explain(name, context)
  const { options, run } = await command.load()
  leaveWebAssemblyUnoptimized()
  countExternalMemoryWithHeap()
  const wish = readWish(argv, options)
  if (wish === undefined) return run(context)
  stdout.write(wish === 'help' ? describeCommand(name, command, options) : VERSION)
  return EXIT.ok
}

function commandOf(name: string): Command | undefined {
  return Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
}

/** What is asked for without a command. */
async function explain(name: string, context: CommandContext): Promise<number> {
  const { argv, stdout, stderr } = context
  const [topic = ''] = argv
  if (name === 'help' && commandOf(topic) !== undefined) {
    await runNamed(topic, { ...context, argv: ['--help'] })
    return EXIT.ok
  }
  const isAboutCommand = name === 'help' && topic !== '' && !topic.startsWith('-')
  if (['help', '--help', '-h'].includes(name) && !isAboutCommand) {
    stdout.write(describeProgram())
    return EXIT.ok
  }
  if (['--version', '-v'].includes(name)) {
    stdout.write(VERSION)
    return EXIT.ok
  }
  stderr.write(`${describeUnknown(isAboutCommand ? topic : name)}${describeProgram()}`)
  return EXIT.usage
}

function describeUnknown(name: string): string {
  if (name === '') return ''
  const near = nearest(name, Object.keys(COMMANDS))
  return `Unknown command ${JSON.stringify(name)}.${near === undefined ? '' : ` Did you mean ${near}?`}\n`
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
 * What Node reads lies outside V8's heap. By default V8 marks its whole heap whenever 64 MiB of that have come, used or
 * not, which costs a stream over TLS a third of its CPU time. Counted with the heap, most of it goes with the young
 * generation. An older Node does not know this flag, and would say so.
 */
function countExternalMemoryWithHeap(): void {
  if (Number.parseInt(process.versions.node) < 26) return
  setFlagsFromString('--external-memory-accounted-in-global-limit')
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
