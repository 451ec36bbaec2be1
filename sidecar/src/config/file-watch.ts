/** Watches files for changes, including the kubelet's symlink swaps, and reports each change once. */

import { watch, type FSWatcher } from 'node:fs'
import { dirname } from 'node:path'
import type { Clock } from '../lib/clock.ts'

export type FileWatchOptions = {
  readonly files: readonly string[]
  readonly readFile: (path: string) => string
  readonly clock: Clock
  /** The content of at least one file has changed. */
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
  let known = readAll(options)
  let cancelSettle = () => {}
  let cancelPoll = () => {}
  const compare = () => {
    const now = readAll(options)
    // A file that is missing during a swap has not changed yet.
    if (now === undefined || now === known) return
    known = now
    onChanged()
  }
  const onEvent = () => {
    cancelSettle()
    cancelSettle = clock.after(SETTLE_MS, compare)
  }
  const poll = () => {
    compare()
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

function readAll({ files, readFile }: FileWatchOptions): string | undefined {
  try {
    return JSON.stringify(files.map((file) => readFile(file)))
  } catch {
    return undefined
  }
}

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
