/** The real product as shipped: where a version of it is, its command line, and its environment. */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { runProcess, startProcess, type ProcessOptions } from './processes.ts'

/** One published version, installed. */
export type Product = {
  readonly version: string
  /** The program that `openclaw` on the command line is. */
  readonly entry: string
}

const HERE = import.meta.dirname
const CLI_LIMIT_MS = 90_000

export const entryIn = (directory: string): string =>
  join(directory, 'node_modules/openclaw/openclaw.mjs')

const readPinnedVersion = (): string => {
  const manifest = JSON.parse(readFileSync(join(HERE, 'package.json'), 'utf8')) as {
    readonly dependencies: { readonly openclaw: string }
  }
  return manifest.dependencies.openclaw
}

/** The version that `package.json` pins and the lockfile locks. */
export const PINNED: Product = { version: readPinnedVersion(), entry: entryIn(HERE) }

export const isInstalled = ({ entry }: Product): boolean => existsSync(entry)

/** An environment that shares nothing with any other OpenClaw on this machine. */
export const productEnv = async (home: string): Promise<Record<string, string>> => {
  await mkdir(join(home, 'tmp'), { recursive: true })
  return {
    HOME: home,
    TMPDIR: join(home, 'tmp'),
    OPENCLAW_STATE_DIR: join(home, 'state'),
    OPENCLAW_CONFIG_PATH: join(home, 'openclaw.json'),
    OPENCLAW_NO_AUTO_UPDATE: '1',
    OPENCLAW_DISABLE_BONJOUR: '1',
    NO_COLOR: '1',
  }
}

type Call = {
  readonly product: Product
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** What the process is called in messages; the first two arguments by default. */
  readonly name?: string
}

export const productCommand = ({ product, args, env, name }: Call): ProcessOptions => ({
  name: name ?? `openclaw ${args.slice(0, 2).join(' ')}`,
  command: process.execPath,
  args: [product.entry, ...args],
  env,
})

export const startProduct = (call: Call) => startProcess(productCommand(call))

/** One call of the `openclaw` command line; gives what it printed. */
export const callProduct = (call: Call) => runProcess(productCommand(call), CLI_LIMIT_MS)

/** The shell command line of the product, for recipes that go through a shell. */
export const shellCommandOf = ({ entry }: Product): string => `'${process.execPath}' '${entry}'`

/** Whether the program's own code has this text: the one way to ask for what no command lists. */
export const hasText = ({ entry }: Product, text: string): boolean => {
  const code = join(dirname(entry), 'dist')
  return readdirSync(code)
    .filter((name) => /\.m?js$/u.test(name))
    .some((name) => readFileSync(join(code, name)).includes(text))
}
