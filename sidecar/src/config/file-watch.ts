/** Watches files for changes, including the kubelet's symlink swaps, and reports each change once. */

import { watch, type FSWatcher } from 'node:fs'
import { dirname } from 'node:path'
import type { Clock } from '../lib/clock.ts'

export type FileWatchOptions = {
  readonly files: readonly string[]
  readonly readFile: (path: string) => string
  readonly clock: Clock
  /** The content of at least one file has changed, or one is gone for good. */
  readonly onChanged: () => void
  /** For tests: `fs.watch`. */
  readonly watchDirectory?: (path: string, onEvent: () => void) => { readonly close: () => void }
}

/** A swap causes several events; the files are read this long after the last one, in milliseconds. */
const SETTLE_MS = 200
/** Some volumes lose events, so the files are also read this often, in milliseconds. */
const POLL_MS = 60_000

/**
 * The kubelet swaps a symlink `..data` next to the files: a watch on a file misses every swap after
 * the first, so the directories are watched and contents compared. Returns a function that stops it.
 */
export function watchFiles(options: FileWatchOptions): () => void {
  const { files, clock, onChanged, watchDirectory = watchOne } = options
  const contents = new Contents(options)
  let cancelSettle = () => {}
  let cancelPoll = () => {}
  const onEvent = () => {
    cancelSettle()
    cancelSettle = clock.after(SETTLE_MS, () => {
      if (contents.haveSettled()) onChanged()
    })
  }
  const poll = () => {
    if (contents.haveChanged()) onChanged()
    cancelPoll = clock.after(POLL_MS, poll)
  }
  cancelPoll = clock.after(POLL_MS, poll)
  const directories = [...new Set(files.map((file) => dirname(file)))]
  const watchers = directories.map((directory) => watchDirectory(directory, onEvent))
  return () => {
    cancelSettle()
    cancelPoll()
    for (const watcher of watchers) watcher.close()
  }
}

/** What was in each file when a change was last reported. */
class Contents {
  readonly #options: FileWatchOptions
  /** `undefined` for a file that could not be read. */
  #known: readonly Content[]
  /** The files that were away at the last poll. */
  #away: ReadonlySet<number> = new Set()

  constructor(options: FileWatchOptions) {
    this.#options = options
    this.#known = this.#read()
  }

  /** After an event: a file that is away may be part of a swap, which is left to the poll. */
  haveSettled(): boolean {
    const now = this.#read()
    return !now.some((_, at) => this.#isAway(now, at)) && this.#take(now, this.#findChanged(now))
  }

  /** At a poll: a file that is away must not hide the others, and is gone if it stays away. */
  haveChanged(): boolean {
    const now = this.#read()
    const away = now.flatMap((_, at) => (this.#isAway(now, at) ? [at] : []))
    const isGone = away.some((at) => this.#away.has(at))
    this.#away = new Set(away)
    return this.#take(now, isGone || this.#findChanged(now))
  }

  #isAway(now: readonly Content[], at: number): boolean {
    return now[at] === undefined && this.#known[at] !== undefined
  }

  #findChanged(now: readonly Content[]): boolean {
    return now.some((content, at) => content !== undefined && content !== this.#known[at])
  }

  /** What is reported is known from then on; one that is away is reported again once it is back. */
  #take(now: readonly Content[], isChanged: boolean): boolean {
    if (isChanged) this.#known = now
    return isChanged
  }

  #read(): readonly Content[] {
    const { files, readFile } = this.#options
    return files.map((file) => {
      try {
        return readFile(file)
      } catch {
        return undefined
      }
    })
  }
}

type Content = string | undefined

/** A directory that cannot be watched is left to the poll. */
function watchOne(directory: string, onEvent: () => void): { readonly close: () => void } {
  let watcher: FSWatcher | undefined
  try {
    watcher = watch(directory, { persistent: false }, onEvent)
    watcher.on('error', () => {})
  } catch {
    watcher = undefined
  }
  return { close: () => watcher?.close() }
}
