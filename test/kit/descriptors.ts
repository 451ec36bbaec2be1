/** How many descriptors a process has open, as Linux lists them. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

const REMOTE_ADDRESS = 2
const INODE = 9

/**
 * Connections to `exceptPort` are left out: a client keeps those to its API server open between two calls, as many as
 * there were calls at once.
 */
export const countDescriptors = (pid: number, exceptPort: number): number => {
  const kept = socketsTo(pid, exceptPort)
  return readdirSync(`/proc/${pid}/fd`).filter((fd) => !kept.has(linkOf(`/proc/${pid}/fd/${fd}`)))
    .length
}

/** As the links of the descriptors name them. */
const socketsTo = (pid: number, port: number): ReadonlySet<string> => {
  const ending = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const rows = ['tcp', 'tcp6'].flatMap((table) => linesOf(`/proc/${pid}/net/${table}`))
  const fields = rows.map((row) => row.trim().split(/\s+/))
  const own = fields.filter((row) => row[REMOTE_ADDRESS]?.endsWith(ending))
  return new Set(own.map((row) => `socket:[${row[INODE]}]`))
}

/** Empty for a machine without IPv6. */
const linesOf = (path: string): readonly string[] => {
  try {
    return readFileSync(path, 'utf8').split('\n')
  } catch {
    return []
  }
}

/** Empty for one that was closed meanwhile. */
const linkOf = (path: string): string => {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}
