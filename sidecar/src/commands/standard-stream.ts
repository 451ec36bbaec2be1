/** Standard output or error of a short-lived command: writes everything, or reports a failure. */

import { fstatSync, writeFileSync } from 'node:fs'
import { asError } from '../lib/errors.ts'

type Stream = {
  readonly on: (event: 'error', listener: () => void) => unknown
  readonly write: (text: string, done: (error?: Error | null) => void) => unknown
}

/** Opened by the first write: Node changes the descriptor when it makes a stream of it. */
export class StandardStream {
  readonly #open: () => Stream
  #stream: Stream | undefined
  #failure: Error | undefined
  #written: Promise<void> = Promise.resolve()

  constructor(open: () => Stream) {
    this.#open = open
  }

  get isBroken(): boolean {
    return this.#failure !== undefined
  }

  readonly write = (text: string): void => {
    const stream = (this.#stream ??= this.#openListening())
    this.#written = new Promise((resolve) => {
      stream.write(text, (error) => {
        this.#failure ??= error ?? undefined
        resolve()
      })
    })
  }

  /**
   * Waits for the reader without a limit, and resolves with the reason if something could not be
   * written. A reader that has left has read what it wanted: that is not a failure.
   */
  async finish(): Promise<Error | undefined> {
    await this.#written
    const failure = this.#failure
    return failure !== undefined && 'code' in failure && failure.code === 'EPIPE'
      ? undefined
      : failure
  }

  #openListening(): Stream {
    const stream = this.#open()
    // The write's callback also gets the error; without a listener it would end the process.
    stream.on('error', () => {})
    return stream
  }
}

/**
 * Node's own stream, except for a file: on a full disk Node takes a partial write for a complete
 * one.
 */
export function openStandard(fd: 1 | 2): Stream {
  if (!fstatSync(fd).isFile()) return fd === 1 ? process.stdout : process.stderr
  return {
    on: () => {},
    write(text, done) {
      try {
        writeFileSync(fd, Buffer.from(text))
        done()
      } catch (error) {
        done(asError(error))
      }
    },
  }
}
