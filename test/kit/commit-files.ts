/** The files of a commit, as git has them: nothing of what lies beside them in a checkout. */

import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const ARCHIVE_BYTES_MAX = 256 * 1024 * 1024
/** What somebody's git is set to must not change a byte or a mode. */
const SETTINGS = {
  'core.autocrlf': 'false',
  'core.eol': 'lf',
  'core.attributesFile': '/dev/null',
  'tar.umask': '0022',
}

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
  const settings = Object.entries(SETTINGS).flatMap(([key, value]) => ['-c', `${key}=${value}`])
  const archive = execFileSync('git', [...settings, 'archive', '--format=tar', commit, ...paths], {
    cwd: ROOT,
    maxBuffer: ARCHIVE_BYTES_MAX,
  })
  const args = ['--extract', '--preserve-permissions', `--directory=${directory}`]
  execFileSync('tar', args, { input: archive })
}
