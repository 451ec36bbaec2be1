/** The files of a commit, as git has them: nothing of what lies beside them in a checkout. */

import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const ARCHIVE_BYTES_MAX = 256 * 1024 * 1024

/**
 * Writes the files below these paths, or all of them, into a directory, which is made. Each file has
 * the time of the commit.
 */
export const extractCommit = (
  commit: string,
  directory: string,
  ...paths: readonly string[]
): void => {
  mkdirSync(directory, { recursive: true })
  const archive = execFileSync('git', ['archive', '--format=tar', commit, ...paths], {
    cwd: ROOT,
    maxBuffer: ARCHIVE_BYTES_MAX,
  })
  execFileSync('tar', ['--extract', `--directory=${directory}`], { input: archive })
}
