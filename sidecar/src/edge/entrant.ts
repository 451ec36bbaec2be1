/** Somebody on the way in: a socket that may leave, a token that is not kept, a time that may be over. */

import type { Socket } from 'node:net'
import type { Code } from '../denial.ts'

export type EntrantOptions = {
  readonly socket: Socket
  readonly address: string
  readonly token: string | undefined
}

export class Entrant {
  readonly socket: Socket
  readonly address: string
  /** Told once when it is gone or out of time, while its admission is under way. */
  onGone: (code: Code) => void = () => {}
  #token: string | undefined
  #abortCode: Code | undefined
  readonly #onLeft = () => this.abort('worker_gone')

  constructor({ socket, address, token }: EntrantOptions) {
    this.socket = socket
    this.address = address
    this.#token = token
    socket.on('end', this.#onLeft)
    socket.on('close', this.#onLeft)
  }

  /** Only until `leave`: the token is not kept. */
  get token(): string | undefined {
    return this.#token
  }

  /** Why it was given up. */
  get abortCode(): Code | undefined {
    return this.#abortCode
  }

  /** Gives it up; the first code counts. */
  abort(code: Code): void {
    if (this.#abortCode !== undefined) return
    this.#abortCode = code
    this.onGone(code)
  }

  /** Its admission is over: from here on somebody else listens to the socket. */
  leave(): void {
    this.onGone = () => {}
    this.#token = undefined
    this.socket.off('end', this.#onLeft)
    this.socket.off('close', this.#onLeft)
  }
}
