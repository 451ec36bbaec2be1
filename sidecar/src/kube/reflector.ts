/** A reflector, as in client-go: lists a collection, watches it, and reports each change once. */

import { Backoff } from '../lib/backoff.ts'
import type { Clock } from '../lib/clock.ts'
import { DeadlineError, pause } from '../lib/deadline.ts'
import { Fault } from '../fault.ts'
import { AnswerTooLarge, type KubeClient } from './client.ts'
import { isListPage, pathOf, versionOf, type Collection, type ListPage } from './list-page.ts'
import { RelistNeeded, type WatchClient, type WatchEvent } from './watch-stream.ts'

export type ReflectorOptions<T> = {
  readonly collection: Collection
  readonly lists: Pick<KubeClient, 'request'>
  readonly watches: Pick<WatchClient, 'open'>
  /** Picks what is needed from an object; throws if it does not understand the object. */
  readonly read: (object: unknown) => T
  /** The whole collection, as listed: what is missing from it is gone. */
  readonly onReplaced: (items: readonly T[]) => void
  readonly onChanged: (item: T) => void
  readonly onDeleted: (item: T) => void
  readonly onFault: (error: unknown) => void
  /** The watch has been open for a second: it works. */
  readonly onLive: () => void
  readonly clock: Clock
  readonly random: () => number
}

/** The most objects per page of a list: parsing a page must not stall the event loop. */
const PAGE_SIZE_MAX = 100
/** The longest list, in pages; a longer one is a fault. */
const PAGES_MAX = 10_000
const LIST_DEADLINE_MS = 15_000
/** Pages grow only while they come sooner than this, in milliseconds. */
const QUICK_PAGE_MS = 4000
/** The API server is asked to end each watch after 20 to 30 s, so that a dead one is noticed. */
const WATCH_S_MIN = 20
const WATCH_S_SPREAD = 10
/** How long a watch may outlast that before it counts as dead, in milliseconds. */
const SILENCE_SPARE_MS = 5000
/** A watch that ends normally sooner than this is reopened only after a pause, in milliseconds. */
const WATCH_MS_MIN = 1000
/** A watch is ended for being behind at most this often, and ever less often, in milliseconds. */
const DISTRUST_MS_MIN = 10_000
const DISTRUST_MS_MAX = 120_000
/** A list that takes longer counts as tried, so that other scopes need not wait, in milliseconds. */
const TRIED_AFTER_MS = 5000
const BACKOFF_MS_MIN = 50
const BACKOFF_MS_MAX = 3000

export class Reflector<T> {
  readonly #options: ReflectorOptions<T>
  readonly #stopped = new AbortController()
  #version: string | undefined
  #isSynced = false
  #isTried = false
  /** Objects per page: fewer after a page that was too large or too slow, and up again when they fit. */
  #pageSize = PAGE_SIZE_MAX
  /** The most that fit into an answer, as far as is known; more again with each list. */
  #pageSizeMax = PAGE_SIZE_MAX
  readonly #backoff: Backoff
  readonly #distrusts: Backoff
  /** Until when the watch is not ended for being behind again. */
  #trustedUntil = -Infinity
  #endWatch: (reason: Error) => void = () => {}
  /** The last proof that everything up to then is known. */
  #heardAt = -Infinity
  /** Until when the open watch is trusted without an event; `undefined` when none is open. */
  #aliveUntil: number | undefined
  #openedAt = 0
  #staleSince: number
  readonly #startedAt: number

  constructor(options: ReflectorOptions<T>) {
    this.#options = options
    this.#backoff = new Backoff({
      minMs: BACKOFF_MS_MIN,
      maxMs: BACKOFF_MS_MAX,
      random: options.random,
    })
    this.#distrusts = new Backoff({
      minMs: DISTRUST_MS_MIN,
      maxMs: DISTRUST_MS_MAX,
      random: options.random,
    })
    this.#staleSince = options.clock.monotonic()
    this.#startedAt = this.#staleSince
  }

  /** Whether the first list has been read. */
  get isSynced(): boolean {
    return this.#isSynced
  }

  /** Whether the first list was read, or failed, or takes long. */
  get isTried(): boolean {
    const { clock } = this.#options
    return this.#isTried || clock.monotonic() - this.#startedAt >= TRIED_AFTER_MS
  }

  /**
   * Milliseconds since an event or a list last proved that what is known is true; `Infinity` while
   * no watch is open, since changes are then being missed.
   */
  get silentForMs(): number {
    return this.#aliveUntil === undefined
      ? Infinity
      : this.#options.clock.monotonic() - this.#heardAt
  }

  /** Milliseconds for which there has been no watch to trust; 0 while there is one. */
  get staleForMs(): number {
    const now = this.#options.clock.monotonic()
    if (this.#aliveUntil === undefined || !this.#hasLived(now)) return now - this.#staleSince
    return Math.max(0, now - this.#aliveUntil)
  }

  /**
   * The API server has just shown what the watch should have shown: it is behind, or its connection is
   * dead without a word. Ends it, and the next one continues from its last event. Does nothing while
   * none is open, and for a while after the last time.
   */
  distrust(): void {
    const { clock } = this.#options
    if (this.#aliveUntil === undefined || clock.monotonic() < this.#trustedUntil) return
    // It has kept up for long since the last time.
    if (clock.monotonic() - this.#trustedUntil > DISTRUST_MS_MAX) this.#distrusts.reset()
    const waitMs = DISTRUST_MS_MIN + this.#distrusts.next()
    this.#trustedUntil = clock.monotonic() + waitMs
    this.#endWatch(new Error('the watch is behind: the API server shows what it did not'))
  }

  /** Runs until `stop`. Never rejects. */
  async run(): Promise<void> {
    const { signal } = this.#stopped
    while (!signal.aborted) {
      try {
        this.#version ??= await this.#list()
        this.#isTried = true
        await this.#watch(this.#version)
      } catch (error) {
        this.#lose()
        if (signal.aborted) return
        this.#isTried = true
        if (error instanceof RelistNeeded) this.#version = undefined
        this.#options.onFault(error)
        await this.#backOff()
      }
    }
  }

  stop(): void {
    this.#stopped.abort()
  }

  async #list(): Promise<string> {
    const { clock, onReplaced } = this.#options
    const startedAt = clock.monotonic()
    const items: T[] = []
    let next: string | undefined
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const list = await this.#pageThatFits(next)
      // Nobody needs the list any more, and a newer reflector may already know better.
      this.#stopped.signal.throwIfAborted()
      for (const object of list.items) items.push(this.#options.read(object))
      next = list.metadata.continue
      if (next === undefined || next === '') {
        // A list without a resourceVersion is a quorum read: it was true when it started.
        onReplaced(items)
        this.#isSynced = true
        this.#heardAt = startedAt
        this.#pageSizeMax = Math.min(PAGE_SIZE_MAX, this.#pageSizeMax * 2)
        this.#pageSize = Math.min(this.#pageSizeMax, this.#pageSize * 2)
        return list.metadata.resourceVersion
      }
    }
    throw new Error(`the list has more than ${PAGES_MAX} pages`)
  }

  /** A pod may have 256 KiB of annotations, so that a page of many is longer than an answer may be. */
  async #pageThatFits(next: string | undefined): Promise<ListPage> {
    const { clock } = this.#options
    for (;;) {
      const startedAt = clock.monotonic()
      try {
        const page = await this.#page(next)
        const isQuick = clock.monotonic() - startedAt < QUICK_PAGE_MS
        if (isQuick) this.#pageSize = Math.min(this.#pageSizeMax, this.#pageSize * 2)
        return page
      } catch (error) {
        const isTooLarge = error instanceof AnswerTooLarge
        if (this.#pageSize === 1 || !(isTooLarge || isTimeout(error))) throw error
        this.#pageSize = Math.ceil(this.#pageSize / 2)
        // Smaller pages of this list came in time: it must not grow back to the size that did not.
        if (isTooLarge || next !== undefined) this.#pageSizeMax = this.#pageSize
        // A server that does not answer at all is told as such, and given a pause.
        if (!isTooLarge) throw error
        this.#stopped.signal.throwIfAborted()
      }
    }
  }

  async #page(next: string | undefined): Promise<ListPage> {
    const path = pathOf(this.#options.collection, {
      limit: String(this.#pageSize),
      ...(next ? { continue: next } : {}),
    })
    const answer = await this.#options.lists.request({
      method: 'GET',
      path,
      deadlineMs: LIST_DEADLINE_MS,
    })
    if (!isListPage(answer.body))
      throw new Fault('pod_unconfirmed', `The answer of ${path} is not a list.`)
    return answer.body
  }

  async #watch(version: string): Promise<void> {
    const { clock, random, watches, collection } = this.#options
    const seconds = Math.round(WATCH_S_MIN + random() * WATCH_S_SPREAD)
    const path = pathOf(collection, {
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion: version,
      timeoutSeconds: String(seconds),
    })
    const lifeMs = seconds * 1000 + SILENCE_SPARE_MS
    const dead = new AbortController()
    const cancel = clock.after(lifeMs, () =>
      dead.abort(new Error('the watch exceeded its maximum duration')),
    )
    this.#endWatch = (reason) => dead.abort(reason)
    const signal = AbortSignal.any([this.#stopped.signal, dead.signal])
    const startedAt = clock.monotonic()
    let cancelLive = () => {}
    const onOpen = () => {
      this.#openedAt = clock.monotonic()
      this.#aliveUntil = this.#openedAt + lifeMs
      cancelLive = clock.after(WATCH_MS_MIN, this.#options.onLive)
    }
    try {
      for await (const event of watches.open({ path, signal, onOpen })) {
        this.#stopped.signal.throwIfAborted()
        this.#takeOrRelist(event)
      }
    } finally {
      cancel()
      cancelLive()
    }
    if (clock.monotonic() - startedAt < WATCH_MS_MIN) {
      throw new Fault('pod_unconfirmed', `The watch of ${collection.path} ended immediately.`)
    }
    // The API server ended it as asked; changes in the meantime come with the next one.
    this.#lose()
  }

  /** Without a relist, the same event would come again from the same version forever. */
  #takeOrRelist(event: WatchEvent): void {
    try {
      this.#take(event)
    } catch (cause) {
      throw new RelistNeeded('a watch event could not be read', { cause })
    }
  }

  #take({ type, object }: WatchEvent): void {
    const { clock, read, onChanged, onDeleted } = this.#options
    const version = versionOf(object)
    switch (type) {
      case 'ADDED':
      case 'MODIFIED':
        onChanged(read(object))
        break
      case 'DELETED':
        onDeleted(read(object))
        break
      case 'BOOKMARK':
        break
      default:
        throw new Error(`the watch holds an event of type ${JSON.stringify(type.slice(0, 32))}`)
    }
    this.#version = version
    this.#heardAt = clock.monotonic()
    this.#backoff.reset()
  }

  #lose(): void {
    const now = this.#options.clock.monotonic()
    if (this.#aliveUntil !== undefined && this.#hasLived(now)) {
      this.#staleSince = Math.min(now, this.#aliveUntil)
      this.#backoff.reset()
    }
    this.#aliveUntil = undefined
  }

  /** A watch that only opens and ends proves nothing: it has to last, or to deliver an event. */
  #hasLived(now: number): boolean {
    return now - this.#openedAt >= WATCH_MS_MIN || this.#heardAt >= this.#openedAt
  }

  /** A stop ends the wait early. */
  async #backOff(): Promise<void> {
    await pause(this.#options.clock, this.#backoff.next(), this.#stopped.signal).catch(() => {})
  }
}

const isTimeout = (error: unknown): boolean =>
  error instanceof Fault && error.cause instanceof DeadlineError
