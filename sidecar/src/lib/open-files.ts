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

/** Whether `error`, or what caused it, says that this process, or the machine, has no descriptor left. */
export function isOutOfFiles(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = 'code' in error ? error.code : undefined
  return code === 'EMFILE' || code === 'ENFILE' || isOutOfFiles(error.cause)
}
