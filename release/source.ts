/** The files of a commit, as git has them: what lies beside them in a checkout reaches no release. */

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { extractCommit } from '../test/kit/commit-files.ts'
import type { Source } from './product.ts'

const ROOT = join(import.meta.dirname, '..')

const git = (...args: readonly string[]): string =>
  execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim()

/** The commit that is checked out. */
export const readRevision = (): string => git('rev-parse', 'HEAD')

/** `directory` is made; each file in it has the time of the commit. */
export const extractSource = (revision: string, directory: string): Source => {
  extractCommit(revision, directory)
  const manifest = readFileSync(join(directory, 'package.json'), 'utf8')
  return {
    directory,
    revision,
    version: (JSON.parse(manifest) as { readonly version: string }).version,
    time: Number(git('log', '-1', '--format=%ct', revision)),
  }
}

/** Whether everything in the checkout is committed. */
export const isClean = (): boolean => git('status', '--porcelain') === ''

/** The tags of a commit. */
export const listTags = (revision: string): readonly string[] =>
  git('tag', '--points-at', revision).split('\n')

/** The files that git knows, of these patterns. */
export const listFiles = (...patterns: readonly string[]): readonly string[] =>
  git('ls-files', '--', ...patterns).split('\n')
