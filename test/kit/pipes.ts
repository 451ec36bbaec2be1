/** Pipes for a process's output, as a slow, a stuck or a vanished reader leaves them. */

import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Something that closes everything at the end, such as a test. */
type Teardown = { readonly teardown: (end: () => void) => void }

/** A named pipe with a reader and a writer, both of this process. */
export const openPipe = (t: Teardown) => {
  const directory = mkdtempSync(join(tmpdir(), 'pipe-'))
  const path = join(directory, 'pipe')
  execFileSync('mkfifo', [path])
  const openReader = () => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  let reader: number | undefined = openReader()
  const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
  const closeReader = () => {
    if (reader !== undefined) closeSync(reader)
    reader = undefined
  }
  const readings: Reading[] = []
  t.teardown(() => {
    closeReader()
    for (const reading of readings) reading.stop()
    closeSync(writer)
    rmSync(directory, { recursive: true })
  })
  return {
    /** To hand to a process. */
    writer,
    /** Writes until nothing more fits. */
    fill() {
      // A separate descriptor: the one that is handed on becomes a blocking one.
      const filler = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
      for (const bytes of [4096, 1]) while (hasWritten(filler, bytes));
      closeSync(filler)
    },
    /** From now on a reader takes what comes. */
    startReading(): Reading {
      const reading = readAll(openReader())
      readings.push(reading)
      return reading
    },
    /** Nobody reads any more, nor will. */
    closeReader,
  }
}

/** A disk with no room left. */
export const openFull = (t: Teardown): number => {
  const full = openSync('/dev/full', 'w')
  t.teardown(() => closeSync(full))
  return full
}

type Reading = {
  readonly text: () => string
  /** Resolves when the text fits. */
  readonly until: (fits: (text: string) => boolean) => Promise<void>
  readonly stop: () => void
}

const readAll = (fd: number): Reading => {
  const socket = new Socket({ fd, readable: true, writable: false })
  const read: string[] = []
  let look = () => {}
  socket.setEncoding('utf8').on('data', (text: string) => {
    read.push(text)
    look()
  })
  const text = () => read.join('')
  return {
    text,
    until: (fits) =>
      new Promise((resolve) => {
        look = () => {
          if (fits(text())) resolve()
        }
        look()
      }),
    stop: () => void socket.destroy(),
  }
}

const hasWritten = (writer: number, bytes: number): boolean => {
  try {
    return writeSync(writer, Buffer.alloc(bytes, ' ')) > 0
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EAGAIN' ? false : raise(error)
  }
}

const raise = (error: unknown): never => {
  throw error
}
