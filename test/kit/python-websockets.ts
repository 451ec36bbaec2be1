/** Python's `websockets`, installed once into the checkout's cache for the tests that speak with it. */

import { execFile } from 'node:child_process'
import { access, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

const LIBRARY = 'websockets==15.0.1'
const INSTALL_MS_MAX = 30_000

/** What `PYTHONPATH` has to name. */
export const PYTHON_LIBRARIES = join(import.meta.dirname, '../../.cache/python')

/** Why a Python client cannot run here; `undefined` when it can. */
export const preparePython = async (): Promise<string | undefined> => {
  try {
    await run('python3', ['--version'])
  } catch {
    return 'there is no python3'
  }
  if (await isInstalled()) return undefined
  try {
    await install()
    return undefined
  } catch {
    return `${LIBRARY} could not be installed`
  }
}

const isInstalled = async (): Promise<boolean> => {
  try {
    await access(join(PYTHON_LIBRARIES, 'websockets'))
    return true
  } catch {
    return false
  }
}

/** Test files run at the same time, so the library must appear complete or not at all. */
const install = async (): Promise<void> => {
  const cache = dirname(PYTHON_LIBRARIES)
  await mkdir(cache, { recursive: true })
  const target = await mkdtemp(`${PYTHON_LIBRARIES}-`)
  try {
    const options = ['--quiet', '--retries', '0', '--no-deps', '--disable-pip-version-check']
    await run('python3', ['-m', 'pip', 'install', ...options, '--target', target, LIBRARY], {
      timeout: INSTALL_MS_MAX,
    })
    await rename(target, PYTHON_LIBRARIES)
  } catch (error) {
    await rm(target, { recursive: true, force: true })
    // The other file was faster.
    if (!(await isInstalled())) throw error
  }
}
