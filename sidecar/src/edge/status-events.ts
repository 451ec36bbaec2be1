/** Sends the status once a second to the few who watch it (server-sent events). */

import type { ServerResponse } from 'node:http'
import type { Clock } from '../lib/clock.ts'
import { ignoreError } from '../lib/peer-errors.ts'
import type { Status } from './status.ts'

export type StatusEventsOptions = {
  readonly clock: Clock
  readonly read: () => Promise<Status>
  /** The most streams at once. */
  readonly max: number
}

const EVERY_MS = 1000
/** A reader that takes nothing for this long is dropped, in milliseconds. */
const SLOW_MS = 10_000

/** One that does not read gets no further event: what waits for it is never more than one. */
export class StatusEvents {
  readonly #options: StatusEventsOptions
  /** Since when each has not taken its last event, on the monotonic clock. */
  readonly #watchers = new Map<ServerResponse, number | undefined>()
  #cancelNext = () => {}

  constructor(options: StatusEventsOptions) {
    this.#options = options
  }

  get isFull(): boolean {
    return this.#watchers.size >= this.#options.max
  }

  /** Takes a response whose head is not sent yet, until its peer leaves. */
  add(response: ServerResponse, headers: Readonly<Record<string, string>>): void {
    this.#watchers.set(response, undefined)
    response.on('error', ignoreError)
    response.once('close', () => this.#remove(response))
    response.writeHead(200, { ...headers, 'content-type': 'text/event-stream' })
    response.flushHeaders()
    void this.#tell([response])
    if (this.#watchers.size === 1) this.#arm()
  }

  async #tell(watchers: Iterable<ServerResponse>): Promise<void> {
    const event = `data: ${JSON.stringify(await this.#options.read())}\n\n`
    for (const watcher of watchers) this.#send(watcher, event)
  }

  /** The next events; none while nobody watches. */
  #arm(): void {
    this.#cancelNext()
    if (this.#watchers.size === 0) return
    this.#cancelNext = this.#options.clock.after(EVERY_MS, () => {
      void this.#tell(this.#watchers.keys()).finally(() => this.#arm())
    })
  }

  #send(watcher: ServerResponse, event: string): void {
    // It has left meanwhile.
    if (!this.#watchers.has(watcher)) return
    if (!watcher.writableNeedDrain) {
      this.#watchers.set(watcher, undefined)
      watcher.write(event)
      return
    }
    const now = this.#options.clock.monotonic()
    const slowSince = this.#watchers.get(watcher) ?? now
    this.#watchers.set(watcher, slowSince)
    if (now - slowSince >= SLOW_MS) watcher.destroy()
  }

  #remove(watcher: ServerResponse): void {
    this.#watchers.delete(watcher)
    if (this.#watchers.size === 0) this.#cancelNext()
  }
}
