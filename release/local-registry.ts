/** A registry on a port of loopback, with its blobs in a directory. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { keepTrackOf } from '../test/kit/leftovers.ts'

/** Resolves with its address, such as `127.0.0.1:41000`. */
export const startRegistry = async (crane: string, disk: string) => {
  mkdirSync(disk, { recursive: true })
  const args = ['registry', 'serve', '--address=127.0.0.1:0', `--disk=${disk}`]
  const child = spawn(crane, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const exited = once(child, 'close')
  const stop = keepTrackOf(async () => {
    child.kill()
    await exited
  })
  const port = await readPort(child.stderr)
  // Its log of each request is not read, and must not fill the pipe.
  child.stderr.resume()
  return { address: `127.0.0.1:${port}`, stop }
}

const readPort = async (log: Readable): Promise<string> => {
  for await (const line of createInterface({ input: log })) {
    const [, port] = /serving on port (\d+)/.exec(line) ?? []
    if (port !== undefined) return port
  }
  throw new Error('the registry ended before it listened')
}
