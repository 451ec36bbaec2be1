/** A real Chromium without a window, that opens one page and ends with the test. */

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { accessSync, constants } from 'node:fs'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
/** Set where a missing browser is a failure. */
const REQUIRED = 'REQUIRE_CHROMIUM'
const STDERR_LINES_MAX = 200

/** Its path; `undefined` where this machine has none and may have none. */
export const findChromium = (): string | undefined => {
  const found = (process.env['PATH'] ?? '')
    .split(delimiter)
    .flatMap((directory) => NAMES.map((name) => join(directory, name)))
    .find(isExecutable)
  if (found === undefined && process.env[REQUIRED] !== undefined) {
    throw new Error(`${REQUIRED} is set, and there is no Chromium on the PATH`)
  }
  return found
}

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

export type ChromiumOptions = {
  readonly program: string
  readonly url: string
  /** As `--host-resolver-rules` has it: what a name on the Internet points to. */
  readonly resolve: string
}

/** Ends the browser and all its processes when the returned function is called. */
export const openChromium = ({ program, url, resolve }: ChromiumOptions) => {
  const profile = mkdtempSync(join(tmpdir(), 'chromium-'))
  const child = spawn(
    program,
    [
      '--headless',
      // A container's root has no sandbox; the page is ours.
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--disable-background-networking',
      '--no-first-run',
      '--remote-debugging-port=0',
      `--user-data-dir=${profile}`,
      `--host-resolver-rules=${resolve}`,
      url,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], detached: true },
  )
  const lines: string[] = []
  child.stderr.on('data', (chunk: Buffer) => {
    if (lines.length < STDERR_LINES_MAX) lines.push(String(chunk))
  })
  const exited = new Promise<void>((done) => {
    child.once('close', () => done())
    child.once('error', () => done())
  })
  return {
    said: () => lines.join(''),
    close: async (): Promise<void> => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // It has ended by itself.
      }
      await exited
      rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
    },
  }
}
