/** The workers of a soak: streams that come again and again, and streams that end with their pod. */

import { setTimeout as sleep } from 'node:timers/promises'
import { outcomeOf, runSoakWorker, SeededRandom, type Got, type Plan } from '../../kit/soak.ts'
import { withBadSignature } from '../../kit/kube-tokens.ts'
import { countOne, countOutcome, newCounts } from './counts.ts'
import { CODE_OF_ENDING, lastingPlan, revokedPlan, SOAK } from './plans.ts'

export type SoakPod = {
  readonly name: string
  readonly address: string
  readonly token: string
}

type CrowdOptions = {
  readonly port: number
  readonly seed: number
  /** What the gateway got of a stream, by its seed. */
  readonly atGateway: {
    readonly wait: (seed: number) => Promise<Got>
    readonly forget: (seed: number) => void
  }
}

/** A refused worker comes again after half to one and a half times this. */
const COME_AGAIN_MS = 1000
/** If all started at once they would only wait for each other. */
const START_MS = 5000
const STRANGER_EVERY_MS = 200
const STRANGER_ADDRESSES = 200
const PROBLEMS_MAX = 100

export class Crowd {
  readonly counts = newCounts()
  /** Streams that are open as the client sees it. */
  open = 0
  readonly #options: CrowdOptions
  readonly #random: SeededRandom
  #seed: number
  #strangers = 0

  constructor(options: CrowdOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
    this.#seed = options.seed
  }

  get isBroken(): boolean {
    return this.counts.problems.length > 0
  }

  /** One stream after another. */
  async comeAgain(pod: SoakPod, isOver: () => boolean): Promise<void> {
    await sleep(START_MS * this.#random.next())
    while (!isOver()) {
      this.#seed += 1
      const isIn = await this.#stream(pod, lastingPlan(this.#seed, this.#random))
      if (!isIn) await this.#rest()
    }
  }

  /** One stream, for as long as its pod lives. */
  async stay(pod: SoakPod, isGone: () => boolean): Promise<void> {
    while (!isGone()) {
      this.#seed += 1
      if (await this.#stream(pod, revokedPlan(this.#seed))) return
      await this.#rest()
    }
  }

  /** Callers with a forged token, one after another. */
  async tryForged(pod: SoakPod, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      this.#strangers += 1
      this.#seed += 1
      const address = `127.0.9.${1 + (this.#strangers % STRANGER_ADDRESSES)}`
      const forged = { ...pod, address, token: withBadSignature(pod.token, this.#strangers) }
      const isIn = await this.#stream(forged, lastingPlan(this.#seed, this.#random))
      if (isIn) this.#report('a forged token was let in')
      await sleep(STRANGER_EVERY_MS)
    }
  }

  /** Whether it was let in; resolves when the stream has ended at both ends. */
  async #stream({ address: localAddress, token }: SoakPod, plan: Plan): Promise<boolean> {
    const { port, atGateway } = this.#options
    const worker = { port, localAddress, token }
    try {
      const started = await runSoakWorker(worker, plan, SOAK)
      if ('status' in started) {
        countOne(this.counts.refused, codeIn(started.body))
        return false
      }
      this.counts.admitted += 1
      this.open += 1
      const down = await started.got
      this.open -= 1
      const up = await atGateway.wait(plan.seed)
      countOutcome(this.counts, CODE_OF_ENDING[plan.ending], outcomeOf(plan, up, down))
      return true
    } catch (error) {
      this.#report(`stream ${plan.seed}: ${String(error)}`)
      return false
    } finally {
      atGateway.forget(plan.seed)
    }
  }

  #report(problem: string): void {
    const { problems } = this.counts
    if (problems.length < PROBLEMS_MAX) problems.push(problem)
  }

  #rest(): Promise<void> {
    return sleep(COME_AGAIN_MS * (0.5 + this.#random.next()))
  }
}

const codeIn = (body: string): string => {
  try {
    return (JSON.parse(body) as { error: { type: string } }).error.type
  } catch {
    return 'no code'
  }
}
