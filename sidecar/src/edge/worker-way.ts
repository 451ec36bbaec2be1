/** Whether the gateway takes connections on the way that workers take: with forwarded headers. */

import type { Fault } from '../fault.ts'
import { GatewayRefused, type GatewayRefusal } from '../gateway-refusal.ts'
import type { Clock } from '../lib/clock.ts'
import { NoAnswer } from '../tunnel/dial.ts'

export type WorkerWayOptions = {
  /** Asks the gateway for one upgrade. Throws a `Fault`. */
  readonly ask: () => Promise<void>
  /**
   * Whether to ask before any worker was refused. A gateway of another protocol may take a
   * connection without an identity amiss.
   */
  readonly isAskedFirst: boolean
  readonly clock: Clock
  /** The gateway begins to refuse, for another reason, or ends (`undefined`). */
  readonly onChanged: (refused: GatewayRefused | undefined) => void
}

/** The shortest time between two questions, in milliseconds. */
const INTERVAL_MS = 2000

const OF_ALL: ReadonlySet<GatewayRefusal> = new Set(['proxy_attribution_required', 'tls'])

/** Whether a gateway that refuses one worker for this may refuse all of them. */
export const isOfAll = (refusal: GatewayRefusal): boolean => OF_ALL.has(refusal)

/** Asks only in doubt, and only when somebody wants to know. */
export class WorkerWay {
  readonly #options: WorkerWayOptions
  #isOpen: boolean
  #refused: GatewayRefused | undefined
  #askedAt = -Infinity
  #flight: Promise<void> | undefined

  constructor(options: WorkerWayOptions) {
    this.#options = options
    this.#isOpen = !options.isAskedFirst
  }

  /** A worker was given an upgrade, or refused it by `fault`. */
  dialed(fault: Fault | undefined): void {
    if (fault === undefined) this.#open()
    else if (fault instanceof NoAnswer) this.doubt()
    else if (fault instanceof GatewayRefused && isOfAll(fault.refusal)) this.doubt()
  }

  /** The gateway may be another one by now. */
  doubt(): void {
    this.#isOpen = false
  }

  /** Why no worker gets to the gateway, in words. */
  async findObjection(): Promise<string | undefined> {
    const { clock } = this.#options
    if (this.#isOpen) return undefined
    if (this.#flight === undefined && clock.monotonic() - this.#askedAt >= INTERVAL_MS) {
      this.#flight = this.#ask().finally(() => (this.#flight = undefined))
    }
    await this.#flight
    return this.#refused?.message
  }

  #open(): void {
    this.#isOpen = true
    this.#set(undefined)
  }

  async #ask(): Promise<void> {
    this.#askedAt = this.#options.clock.monotonic()
    try {
      await this.#options.ask()
      this.#open()
    } catch (error) {
      // Silence is not a refusal, and other checks report it.
      if (!(error instanceof GatewayRefused)) this.#set(undefined)
      else if (isOfAll(error.refusal)) this.#set(error)
      // Workers bring an identity, which the question lacks: they may get another answer.
      else this.#open()
    }
  }

  #set(refused: GatewayRefused | undefined): void {
    const isSame = this.#refused?.message === refused?.message
    this.#refused = refused
    if (!isSame) this.#options.onChanged(refused)
  }
}
