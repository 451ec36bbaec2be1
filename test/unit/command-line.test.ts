/** Each mistake on a command line is named with its remedy, and every command says how it is used. */

import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import {
  COMMON_OPTIONS,
  CONFIG_OPTIONS,
  DEFAULT_CONFIG_FILE,
  readArguments,
  readWish,
  UsageError,
} from '@openclaw-k8s/auth-sidecar/commands/arguments.ts'
import { COMMANDS } from '@openclaw-k8s/auth-sidecar/commands/commands.ts'
import { EXIT } from '@openclaw-k8s/auth-sidecar/commands/command.ts'
import { describeCommand, describeProgram } from '@openclaw-k8s/auth-sidecar/commands/help.ts'
import { run as printConfig } from '@openclaw-k8s/auth-sidecar/commands/print-config.ts'
import { run as doctor } from '@openclaw-k8s/auth-sidecar/commands/doctor.ts'
import { run as drain } from '@openclaw-k8s/auth-sidecar/commands/drain.ts'
import { run as checkConfig } from '@openclaw-k8s/auth-sidecar/commands/check-config.ts'
import { run as serve } from '@openclaw-k8s/auth-sidecar/commands/serve.ts'
import { runCommand } from '../kit/run-command.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const OPTIONS = {
  ...CONFIG_OPTIONS,
  json: { type: 'boolean', description: 'Any.' },
} as const

test('a command line is read against the options of its command', async (t) => {
  const line = ['--config', 'a', '--set', 'b=1', '--set=c=-2', '--json']
  t.strictSame(readArguments(line, OPTIONS), { config: 'a', set: ['b=1', 'c=-2'], json: true })
  t.strictSame(readArguments([], OPTIONS), {})
})

test('each mistake on a command line is named, and a misspelt option corrected', async (t) => {
  const cases: readonly [line: readonly string[], message: RegExp][] = [
    [['--confg', 'x'], /^Unknown option "--confg"\. Did you mean --config\?$/],
    [['--Set=a=1'], /Did you mean --set\?$/],
    [['--jsn'], /Did you mean --json\?$/],
    [['--hepl'], /Did you mean --help\?$/],
    [['--frobnicate'], /^Unknown option "--frobnicate"\.$/],
    [['-x'], /^Unknown option "-x"\.$/],
    [['--\u001B[31m'], /^Unknown option "--\\u001b\[31m"\.$/],
    [['--constructor'], /^Unknown option "--constructor"\./],
    [['config.yaml'], /^Unexpected argument "config\.yaml": .* such as --config FILE\.$/],
    [['--', 'x'], /^Unexpected argument "--"/],
    [['--config'], /^The option --config needs a value: --config=FILE\.$/],
    [['--config', '--set', 'a=1'], /^The option --config needs a value: --config=FILE\.$/],
    [['--json=yes'], /^The option --json takes no value\.$/],
    [['--config', 'a', '--config=b'], /^The option --config is given twice\.$/],
    [['--json', '--json'], /^The option --json is given twice\.$/],
  ]
  for (const [line, message] of cases) {
    t.throws(() => readArguments(line, OPTIONS), { name: 'UsageError', message }, line.join(' '))
  }
  t.ok(new UsageError('') instanceof Error)
})

test('help and version are found anywhere on the line, but not among the values', async (t) => {
  t.equal(readWish(['--confg', 'x', '--help'], OPTIONS), 'help')
  t.equal(readWish(['-h'], {}), 'help')
  t.equal(readWish(['--set', 'a=1', '-v'], OPTIONS), 'version')
  t.equal(readWish(['--config', '-h'], OPTIONS), undefined)
  t.equal(readWish(['--', '--help'], OPTIONS), undefined)
})

test('the help of each command has its options, their defaults and its exit codes', async (t) => {
  const program = describeProgram()
  const codes = Object.values(EXIT).map(String)
  for (const [name, command] of Object.entries(COMMANDS)) {
    t.match(program, `\n  ${name} `)
    const { options } = await command.load()
    const help = describeCommand(name, command, options)
    t.match(help, `Usage: auth-sidecar ${name}`)
    for (const [option, { default: fallback = '' }] of Object.entries({
      ...options,
      ...COMMON_OPTIONS,
    } as typeof options)) {
      t.match(help, `--${option}`, `${name} --${option}`)
      t.ok(help.replaceAll(/\s+/g, ' ').includes(fallback), fallback)
    }
    const told = [...help.matchAll(/^ {2}(\d+) +\S/gm)].map(([, code]) => code)
    t.strictSame(told.slice(0, 2), ['0', '64'])
    t.strictSame(
      told.filter((code = '') => !codes.includes(code)),
      [],
    )
    t.ok(help.split('\n').every((line) => line.length <= 100))
  }
})

test('without a file every command says so, and not that the allow-list is missing', async (t) => {
  for (const run of [checkConfig, printConfig, doctor, drain, serve]) {
    const { exitCode, stderr } = await runCommand(run, {})
    t.equal(exitCode, 78)
    const told = `The configuration has a problem:
  (${DEFAULT_CONFIG_FILE}): No --config was given, and this file does not exist.
    Hint: Name the configuration with --config FILE.
`
    // A sidecar may run all the same: `drain` calls it.
    t.equal(run === drain ? stderr.slice(0, told.length) : stderr, told)
  }
  const partial = await runCommand(checkConfig, { set: ['log.level=info'] })
  t.match(partial.stderr, /2 problems:\n {2}\(\/etc[^]*not exist\.\n[^]*The allow-list is missing/)
  const whole = await runCommand(checkConfig, { set: ['k8sTrust.enabled=false'] })
  t.equal(whole.exitCode, 0, 'options alone can be a configuration')
})

test('a variable that looks like the name of the file gets a true hint', async (t) => {
  const hintFor = async (variable: string) =>
    (await runCommand(checkConfig, { env: { [variable]: 'x' } })).stderr
  for (const variable of ['AUTH_SIDECAR_CONFIG', 'AUTH_SIDECAR_CONFIG_FILE']) {
    t.match(await hintFor(variable), 'has no variable: name it with --config FILE.')
  }
  t.match(await hintFor('AUTH_SIDECAR_LOG_LEVL'), 'Did you mean AUTH_SIDECAR_LOG_LEVEL?')
  t.notMatch(await hintFor('AUTH_SIDECAR_FROB'), 'Did you mean', 'the prefix does not count')
})

test('the command of a checkout is a script that any Node can start', async (t) => {
  const script = `${ROOT}sidecar/auth-sidecar.js`
  const manifest = JSON.parse(readFileSync(`${ROOT}sidecar/package.json`, 'utf8')) as {
    version: string
    bin: object
  }
  t.strictSame(manifest.bin, { 'auth-sidecar': 'auth-sidecar.js' })
  t.equal(execFileSync(script, ['version'], { encoding: 'utf8' }), `${manifest.version}\n`)
  const asOld = `Object.defineProperty(process,'versions',{value:{...process.versions,node:'20.1.0'}})`
  const env = { ...process.env, NODE_OPTIONS: `--import=data:text/javascript,${asOld}` }
  const { status, stderr } = spawnSync(script, { env, encoding: 'utf8' })
  t.equal(status, 69)
  t.match(stderr, /needs Node 26 or newer, .* `npx auth-sidecar`/)
})
