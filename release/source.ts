/** The files of a commit, as git has them: what lies beside them in a checkout reaches no release. */

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { extractCommit } from '../test/kit/commit-files.ts'
import type { Source } from './product.ts'

const ROOT = join(import.meta.dirname, '..')

const git = (...args: readonly string[]): string =>
  execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim()

/** `directory` is made; each file in it has the time of the commit. */
export const extractSource = (directory: string): Source => {
  extractCommit('HEAD', directory)
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
