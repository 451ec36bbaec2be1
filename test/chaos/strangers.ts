/** Callers without a right to come in: what they show, and whether anybody believed them. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { RawData } from 'ws'
import { SeededRandom } from '../kit/soak.ts'
import type { Pretence } from './answers.ts'
import { attempt, type Attempt, type Caller } from './attempt.ts'
import { PORTS } from './world.ts'

export type Stranger = Caller & { readonly pretence: Pretence }

const BETWEEN_MS = 150
/** How long one without a token waits for an echo or its end. */
const ANSWER_MS = 3000
const RESULTS_MAX = 5000
const FIRST_MESSAGE = 'let me in'

export type Trial = {
  readonly stranger: Stranger
  readonly startedAt: number
  readonly outcome: Attempt['kind']
  /** Why it was refused. */
  readonly code: string
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
  const attempted = await attempt(PORTS.workersRelay, stranger)
  const { outcome, code } = await outcomeOf(attempted, stranger)
  return { stranger, startedAt, outcome, code }
}

const outcomeOf = async (
  attempted: Attempt,
  { token }: Stranger,
): Promise<Pick<Trial, 'outcome' | 'code'>> => {
  if (attempted.kind === 'refused') return { outcome: 'refused', code: attempted.code }
  if (attempted.kind === 'no answer') return { outcome: 'no answer', code: '' }
  const { socket } = attempted
  if (token !== undefined) {
    socket.terminate()
    return { outcome: 'in', code: '' }
  }
  // The upgrade was granted so that the first message can show a token. The sidecar refuses with a message too;
  // an echo would come from the gateway.
  const { promise, resolve } = Promise.withResolvers<Pick<Trial, 'outcome' | 'code'>>()
  socket.on('message', (data: RawData) => {
    if ((data as Buffer).toString() === FIRST_MESSAGE) resolve({ outcome: 'in', code: '' })
  })
  socket.once('close', (_, reason) => {
    const code = reason.toString()
    resolve(code === '' ? { outcome: 'no answer', code } : { outcome: 'refused', code })
  })
  socket.send(FIRST_MESSAGE)
  const outcome = await Promise.race([promise, sleep(ANSWER_MS, undefined)])
  socket.terminate()
  return outcome ?? { outcome: 'no answer', code: '' }
}

/** The token with some characters of its signature changed. */
export const forge = (token: string): string => {
  const at = token.lastIndexOf('.') + 10
  const changed = token.slice(at, at + 8).replaceAll(/./g, (each) => (each === 'A' ? 'B' : 'A'))
  return `${token.slice(0, at)}${changed}${token.slice(at + 8)}`
}
