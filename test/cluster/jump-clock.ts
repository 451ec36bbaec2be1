/** The machine's clock, whose monotonic time a test can move ahead; wall time stays that of the cluster. */

import type { Clock } from '@openclaw-k8s/auth-sidecar/lib/clock.ts'

type Wait = { readonly due: number; readonly run: () => void; timer: NodeJS.Timeout }

export class JumpClock implements Clock {
  #ahead = 0
  readonly #waits = new Set<Wait>()

  readonly now = (): number => Date.now()

  readonly monotonic = (): number => performance.now() + this.#ahead

  readonly after = (ms: number, run: () => void): (() => void) => {
    const wait: Wait = { due: this.monotonic() + ms, run, timer: this.#arm(ms, () => fire()) }
    const fire = () => this.#fire(wait)
    this.#waits.add(wait)
    return () => this.#drop(wait)
  }

  /** Timers that fall due on the way run now, in order; the others run that much sooner. */
  jump(ms: number): void {
    this.#ahead += ms
    const now = this.monotonic()
    for (const wait of [...this.#waits].toSorted((a, b) => a.due - b.due)) {
      if (!this.#waits.has(wait)) continue
      if (wait.due <= now) {
        this.#fire(wait)
        continue
      }
      clearTimeout(wait.timer)
      wait.timer = this.#arm(wait.due - now, () => this.#fire(wait))
    }
  }

  #arm(ms: number, run: () => void): NodeJS.Timeout {
    return setTimeout(run, ms).unref()
  }

  #fire(wait: Wait): void {
    this.#drop(wait)
    wait.run()
  }

  #drop(wait: Wait): void {
    clearTimeout(wait.timer)
    this.#waits.delete(wait)
  }
}
