/** Callers without a right to come in: what they show, and whether anybody believed them. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { RawData } from 'ws'
import { SeededRandom } from '../kit/soak.ts'
import { attempt, type Attempt, type Caller } from './attempt.ts'
import { PORTS } from './world.ts'

type Pretence =
  | 'a forged signature'
  | "another pod's token"
  | "a deleted pod's token"
  | 'a token for another audience'
  | 'a token of a stranger'
  | 'no token'

export type Stranger = Caller & { readonly pretence: Pretence }

const BETWEEN_MS = 150
/** How long one without a token waits for an echo. */
const ECHO_MS = 1500
const RESULTS_MAX = 5000
const FIRST_MESSAGE = 'let me in'

export type Trial = {
  readonly stranger: Stranger
  readonly startedAt: number
  readonly outcome: Attempt['kind']
  readonly status: number
}

/** Tries one after another for as long as it is not stopped. */
export class Strangers {
  readonly trials: Trial[] = []
  readonly #draw: (random: SeededRandom) => Stranger | undefined
  readonly #random: SeededRandom
  #isOver = false
  #life: Promise<void> | undefined

  constructor(seed: number, draw: (random: SeededRandom) => Stranger | undefined) {
    this.#random = new SeededRandom(seed)
    this.#draw = draw
  }

  begin(): void {
    this.#life = this.#goOn()
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#life
  }

  async #goOn(): Promise<void> {
    while (!this.#isOver && this.trials.length < RESULTS_MAX) {
      const stranger = this.#draw(this.#random)
      if (stranger !== undefined) this.trials.push(await tryIn(stranger))
      await sleep(BETWEEN_MS)
    }
  }
}

export const tryIn = async (stranger: Stranger): Promise<Trial> => {
  const startedAt = performance.now()
  const outcome = await attempt(PORTS.workersRelay, stranger)
  const status = outcome.kind === 'refused' ? outcome.status : 0
  if (outcome.kind !== 'in') return { stranger, startedAt, outcome: outcome.kind, status }
  const { socket } = outcome
  if (stranger.token !== undefined) {
    socket.terminate()
    return { stranger, startedAt, outcome: 'in', status }
  }
  // The upgrade was granted so that the first message can show a token. The sidecar refuses with a message too;
  // an echo would come from the gateway.
  const { promise, resolve } = Promise.withResolvers<boolean>()
  socket.on('message', (data: RawData) => {
    if ((data as Buffer).toString() === FIRST_MESSAGE) resolve(true)
  })
  socket.once('close', () => resolve(false))
  socket.send(FIRST_MESSAGE)
  const isIn = await Promise.race([promise, sleep(ECHO_MS, false)])
  socket.terminate()
  return { stranger, startedAt, outcome: isIn ? 'in' : 'refused', status: 401 }
}

/** The token with some characters of its signature changed. */
export const forge = (token: string): string => {
  const at = token.lastIndexOf('.') + 10
  const changed = token.slice(at, at + 8).replaceAll(/./g, (each) => (each === 'A' ? 'B' : 'A'))
  return `${token.slice(0, at)}${changed}${token.slice(at + 8)}`
}
