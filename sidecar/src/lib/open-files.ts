/** How many files, and so sockets, this process may have open. */

/** Linux alone tells it, and Node has raised it to the hard limit by the time it is read. */
const LIMITS_FILE = '/proc/self/limits'

/** `Infinity` where nothing tells it. */
export function readOpenFilesMax(readFile: (path: string) => string): number {
  try {
    const [, soft = ''] = /^Max open files +(\d+)/m.exec(readFile(LIMITS_FILE)) ?? []
    return soft === '' ? Infinity : Number(soft)
  } catch {
    return Infinity
  }
}
