/** The chart of 0.1.0, as git has it. */

import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { extractCommit } from '../kit/commit-files.ts'

const ROOT = join(import.meta.dirname, '../..')
/** What 0.1.0 was; the tag of its image, where one is built for a test. */
export const FIRST_COMMIT = '7d7ea2b'

/** Why it cannot be had here, if so. */
export const whyNoFirstChart = (): string | undefined => {
  const { status } = spawnSync('git', ['cat-file', '-e', `${FIRST_COMMIT}:charts`], { cwd: ROOT })
  return status === 0 ? undefined : 'the clone does not reach back to 0.1.0'
}

/** Writes it below a directory; resolves with its path, and the values files of its features. */
export const extractFirstChart = (directory: string) => {
  const target = join(directory, 'first')
  extractCommit(FIRST_COMMIT, target, 'charts')
  const chart = join(target, 'charts/openclaw')
  const features = readdirSync(join(chart, 'ci')).map((name) => join(chart, 'ci', name))
  return { chart, features: features.toSorted() }
}
