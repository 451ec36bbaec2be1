/** How many files, and therefore sockets, this process may have open. */

/**
 * Only Linux has this file. By the time it is read, Node has raised the soft limit to the hard one.
 */
const LIMITS_FILE = '/proc/self/limits'

/** `Infinity` where the limit is unknown. */
export function readOpenFilesMax(readFile: (path: string) => string): number {
  try {
    const [, soft = ''] = /^Max open files +(\d+)/m.exec(readFile(LIMITS_FILE)) ?? []
    return soft === '' ? Infinity : Number(soft)
  } catch {
    return Infinity
  }
}

/** A stream has a socket to its worker and one to the gateway. */
const FILES_PER_STREAM = 2

/** Why `streams` streams cannot all be open, in words. */
export function findFilesObjection(openFilesMax: number, streams: number): string | undefined {
  const fitting = Math.floor(openFilesMax / FILES_PER_STREAM)
  return fitting >= streams
    ? undefined
    : `the process may open ${openFilesMax} files: fewer than ${fitting} of ${streams} streams (limits.streams) fit`
}

/** What is said where descriptors have run out. */
export const NO_FILES = 'the sidecar has no file descriptor left'

/** Whether `error`, or what caused it, says that this process, or the machine, has no descriptor left. */
export function isOutOfFiles(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = 'code' in error ? error.code : undefined
  return code === 'EMFILE' || code === 'ENFILE' || isOutOfFiles(error.cause)
}
