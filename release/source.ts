/** The files of a commit, as git has them: what lies beside them in a checkout reaches no release. */

import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Source } from './product.ts'

const ROOT = join(import.meta.dirname, '..')
const ARCHIVE_BYTES_MAX = 256 * 1024 * 1024

const git = (...args: readonly string[]): string =>
  execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim()

/** `directory` is made; each file in it has the time of the commit. */
export const extractSource = (directory: string): Source => {
  mkdirSync(directory, { recursive: true })
  const archive = execFileSync('git', ['archive', '--format=tar', 'HEAD'], {
    cwd: ROOT,
    maxBuffer: ARCHIVE_BYTES_MAX,
  })
  execFileSync('tar', ['--extract', `--directory=${directory}`], { input: archive })
  const manifest = readFileSync(join(directory, 'package.json'), 'utf8')
  return {
    directory,
    revision: git('rev-parse', 'HEAD'),
    version: (JSON.parse(manifest) as { readonly version: string }).version,
    time: Number(git('log', '-1', '--format=%ct')),
  }
}

/** Whether everything in the checkout is committed. */
export const isClean = (): boolean => git('status', '--porcelain') === ''

/** The tags of the commit. */
export const listTags = (): readonly string[] => git('tag', '--points-at', 'HEAD').split('\n')
