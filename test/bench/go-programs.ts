/** Builds the Go programs of the benchmark into a cache, if Go is installed. */

import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const CACHE = fileURLToPath(new URL('../../node_modules/.cache/bench/', import.meta.url))

/** The version of Go, or `undefined` if it is not installed. */
export const findGo = (): string | undefined => {
  try {
    return execFileSync('go', ['env', 'GOVERSION'], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}

/** Builds the module in a directory next to this file and returns the path of the program. */
export const buildGo = (directory: string): string => {
  mkdirSync(CACHE, { recursive: true })
  const program = join(CACHE, directory.replaceAll('/', '-'))
  execFileSync('go', ['build', '-o', program, '.'], {
    cwd: fileURLToPath(new URL(`${directory}/`, import.meta.url)),
    stdio: ['ignore', 'inherit', 'inherit'],
    // The standard library is all they need, so nothing may be fetched.
    env: {
      HOME: homedir(),
      ...process.env,
      GOTOOLCHAIN: 'local',
      GOPROXY: 'off',
      CGO_ENABLED: '0',
    },
  })
  return program
}
