/** Installs OpenClaw: the pinned version from its lockfile, every other one into a cache. */

import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { entryIn, isInstalled, PINNED, type Product } from './product.ts'
import { runProcess } from './processes.ts'

const HERE = import.meta.dirname
const INSTALL_LIMIT_MS = 10 * 60_000
/** A calendar version, perhaps with the number of a rebuild; no tag and no range, as it becomes a path. */
const VERSION = /^\d{4}\.\d{1,2}\.\d{1,3}(?:-\d{1,3})?$/u
const NEVER_PUBLISHED = /\bE(?:TARGET|404)\b/u

export const isVersion = (text: string): boolean => VERSION.test(text)

/** No such version, as opposed to a registry that cannot be reached. */
export class UnknownVersion extends Error {}

/** Where versions besides the pinned one are kept; a caller who wants them to outlive the checkout says where. */
const cacheOf = (env: NodeJS.ProcessEnv): string =>
  env['OPENCLAW_VERSIONS_DIR'] ?? join(HERE, '../../.cache/openclaw-versions')

/**
 * A version, installed if it was not yet, within 10 minutes.
 * Throws `UnknownVersion`, or an error with npm's own words when the registry cannot be reached.
 */
export const provideProduct = async (
  version: string,
  say: (text: string) => void,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Product> => {
  const cache = cacheOf(env)
  const product =
    version === PINNED.version ? PINNED : { version, entry: entryIn(join(cache, version)) }
  if (isInstalled(product)) return product
  say(`installing OpenClaw ${version}, once …`)
  if (product === PINNED) await runNpm(['ci', '--prefix', HERE], env)
  else await installInto(cache, version, env)
  return product
}

const installInto = async (
  cache: string,
  version: string,
  env: NodeJS.ProcessEnv,
): Promise<void> => {
  mkdirSync(cache, { recursive: true })
  const unfinished = mkdtempSync(join(cache, 'unfinished-'))
  // A node that hosts sessions runs as another user.
  chmodSync(unfinished, 0o755)
  const finished = join(cache, version)
  try {
    writeFileSync(join(unfinished, 'package.json'), '{"private":true}\n')
    await runNpm(['install', '--prefix', unfinished, `openclaw@${version}`], env)
    // Never incomplete: an interrupted installation leaves nothing under this name.
    if (!existsSync(finished)) renameSync(unfinished, finished)
  } catch (error) {
    throw NEVER_PUBLISHED.test(String(error)) ? unknownVersion(version, error) : error
  } finally {
    rmSync(unfinished, { recursive: true, force: true })
  }
}

const unknownVersion = (version: string, cause: unknown): UnknownVersion => {
  const look = '`npm view openclaw versions` lists what there is'
  return new UnknownVersion(`npm has no openclaw@${version}: ${look}`, { cause })
}

const runNpm = async (args: readonly string[], outer: NodeJS.ProcessEnv): Promise<void> => {
  // npm hands its own settings down to scripts; the inner npm has to find its own prefix.
  const env = Object.fromEntries(
    Object.entries(outer)
      .filter(([name]) => !/^npm_(?:config_(?:local_)?prefix|package|lifecycle)/u.test(name))
      .flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  )
  // A caller's `npm run --silent` would be handed down, and hide why npm failed.
  const loud = [...args, '--loglevel=error']
  await runProcess({ name: `npm ${args[0]}`, command: 'npm', args: loud, env }, INSTALL_LIMIT_MS)
}
