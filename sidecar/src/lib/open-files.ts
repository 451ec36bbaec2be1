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
