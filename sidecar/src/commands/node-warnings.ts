/** What Node.js gives reason to warn of in the log: what it warns of itself, and its own version. */

import { findNodeObjection, NODE_REMEDY } from '../lib/node-floor.ts'
import type { Log } from '../observe/log.ts'
import { version } from '../version.ts'

export function logNodeWarnings(log: Log): void {
  // Node's default listener bypasses the log and could block on a slow reader.
  process.removeAllListeners('warning')
  process.on('warning', (err) => log.warn({ err }, 'Node.js warning'))
  const objection = findNodeObjection(version.node)
  if (objection !== undefined) log.warn({ hint: NODE_REMEDY }, objection)
}
