/** A port for a process that can neither choose one itself nor tell which one it got. */

import { createServer } from 'node:net'

/**
 * Below the ports that systems give to outgoing connections: one of those could be taken again, by
 * any test at the same time, before the process listens on it.
 */
const FIRST = 10_000
const COUNT = 20_000
const TRIES_MAX = 200

/** Test files run at the same time: each process starts somewhere else. */
let next = (process.pid * 37) % COUNT

export const findFreePort = async (): Promise<number> => {
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    const port = FIRST + (next++ % COUNT)
    if (await isFree(port)) return port
  }
  throw new Error(`no port is free among ${TRIES_MAX}`)
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
