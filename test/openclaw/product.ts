/** The real product as shipped: where it is, how it is installed, and the environment it runs in. */

import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { runProcess, startProcess, type ProcessOptions } from './processes.ts'

const HERE = import.meta.dirname
export const PRODUCT = join(HERE, 'node_modules/openclaw/openclaw.mjs')
const INSTALL_LIMIT_MS = 10 * 60_000
const CLI_LIMIT_MS = 60_000

export const isInstalled = (): boolean => existsSync(PRODUCT)

/** Installs exactly what the lockfile says. Throws when the registry cannot be reached. */
export const install = async (): Promise<void> => {
  const { npm_config_cache: cache, ...rest } = process.env
  const env = Object.fromEntries(
    Object.entries({ ...rest, ...(cache === undefined ? {} : { npm_config_cache: cache }) })
      // npm hands its own settings down to scripts; the inner npm has to find its own prefix.
      .filter(([name]) => !/^npm_(?:config_(?:local_)?prefix|package|lifecycle)/u.test(name))
      .flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  )
  const command = { name: 'npm ci', command: 'npm', args: ['ci', '--prefix', HERE], env }
  await runProcess(command, INSTALL_LIMIT_MS)
}

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

export const productCommand = (
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): ProcessOptions => ({ name, command: process.execPath, args: [PRODUCT, ...args], env })

export const startProduct = (...command: Parameters<typeof productCommand>) =>
  startProcess(productCommand(...command))

/** One call of the `openclaw` command line; gives what it printed. */
export const callProduct = (args: readonly string[], env: Readonly<Record<string, string>>) =>
  runProcess(productCommand(`openclaw ${args.slice(0, 2).join(' ')}`, args, env), CLI_LIMIT_MS)

/** The shell command line of the product, for recipes that go through a shell. */
export const SHELL_PRODUCT = `'${process.execPath}' '${PRODUCT}'`
